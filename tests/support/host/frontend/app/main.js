// What is shown where.
import { askToSignIn, showBalance } from './balance.js';
import { askForConsent } from './consent.js';
import { element, show } from './dom.js';
import { base, move, onArrival, path } from './place.js';
import { showSignIn } from './sign-in.js';
import { language, text } from './texts.js';

const showHome = () => {
	show(
		element(
			'main',
			{},
			element(
				'section',
				{ class: 'card' },
				element('h1', {}, text.home),
				element('p', { class: 'quiet' }, text.home_text),
				element(
					'p',
					{},
					element('a', { href: `${base}/billing/balance`, 'data-inside': true }, text.to_balance)
				)
			)
		)
	);
};

let leave = () => undefined;

document.documentElement.lang = language;

// A link inside the application loads no new page.
document.addEventListener('click', (event) => {
	const link = event.target.closest('a[data-inside]');
	if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
	event.preventDefault();
	move(link.pathname.slice(base.length));
});

onArrival(() => {
	leave();
	leave = () => undefined;
	if (path() === '/auth') showSignIn();
	else if (path() !== '/billing/balance') showHome();
	else if (localStorage.token) leave = showBalance();
	else askToSignIn();
});

askForConsent();
