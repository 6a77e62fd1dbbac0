import { signIn } from './api.js';
import { element, show } from './dom.js';
import { move } from './place.js';
import { text } from './texts.js';

const field = (label, attributes) =>
	element(
		'label',
		{},
		element('span', {}, label),
		element('input', { required: true, ...attributes })
	);

export function showSignIn() {
	const problem = element('p', { class: 'problem', role: 'alert' });
	const button = element('button', { class: 'main' }, text.sign_in);

	async function submit(event) {
		event.preventDefault();
		const { email, password } = Object.fromEntries(new FormData(event.target));
		problem.textContent = '';
		button.disabled = true;
		button.textContent = text.signing_in;
		try {
			localStorage.token = (await signIn(email, password)).token;
			const wanted = new URLSearchParams(location.search).get('redirect') ?? '';
			move(/^\/(?!\/)/.test(wanted) ? wanted : '/billing/balance', { replace: true });
		} catch (error) {
			problem.textContent = error.message;
			button.disabled = false;
			button.textContent = text.sign_in;
		}
	}

	show(
		element(
			'main',
			{ class: 'narrow' },
			element(
				'form',
				{ class: 'card', onsubmit: submit },
				element('h1', {}, text.sign_in),
				field(text.email, { name: 'email', type: 'email', autocomplete: 'username' }),
				field(text.password, {
					name: 'password',
					type: 'password',
					autocomplete: 'current-password'
				}),
				problem,
				button
			)
		)
	);
}
