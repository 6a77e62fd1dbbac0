// What the host asks for beside the page, or ahead of it, as real hosts do: leave to count visits, in a bar that
// has the role of a dialog and covers nothing; and its terms, which cover everything and have no role.
import { element } from './dom.js';
import { text } from './texts.js';

const DUE_KEY = 'consent_due'; // "visits" or "terms"; nothing is due unless this says so

export function askForConsent() {
	const due = localStorage.getItem(DUE_KEY);
	if (due === 'visits') document.body.append(visitsBar());
	if (due === 'terms') document.body.append(termsGate());
}

function settle(shown) {
	localStorage.removeItem(DUE_KEY);
	shown.remove();
}

function visitsBar() {
	const bar = element(
		'div',
		{ class: 'bar', role: 'dialog', 'aria-label': text.visits },
		element('p', {}, text.visits_text),
		element('button', { onclick: () => settle(bar) }, text.visits_no),
		element('button', { class: 'main', onclick: () => settle(bar) }, text.visits_yes)
	);
	return bar;
}

function termsGate() {
	const accept = element(
		'button',
		{ class: 'main', disabled: true, onclick: () => settle(gate) },
		text.terms_accept
	);
	const box = element('input', {
		type: 'checkbox',
		onchange: () => (accept.disabled = !box.checked)
	});
	const gate = element(
		'div',
		{ class: 'gate' },
		element(
			'div',
			{ class: 'card' },
			element('h1', {}, text.terms),
			element('label', { class: 'tick' }, box, element('span', {}, text.terms_text)),
			accept
		)
	);
	return gate;
}
