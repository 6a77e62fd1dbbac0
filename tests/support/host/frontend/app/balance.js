// The balance page.
import { createTopup, getBalance, getLedger, getPricing } from './api.js';
import { element, show } from './dom.js';
import { storeFlow, total } from './flow.js';
import { base, move, path } from './place.js';
import { amount, change, moment, roundAmount, text } from './texts.js';
import { TopupReturn } from './topup-return.js';

const DEFAULT_PACKAGES_RUB = [1000, 1500, 5000, 10000];

/** Show it; what comes back is to be called when the person leaves. */
export function showBalance() {
	let balance = null;
	const figure = element('p', { class: 'figure' }, '…');
	const problem = element('p', { class: 'problem', role: 'alert' });
	const banner = element('section', { class: 'banner', role: 'status', hidden: true });
	const packages = element('div', { class: 'packages' });
	const customAmount = element('form', { class: 'custom', hidden: true });
	const entries = element('ul', { class: 'entries' });
	const topupReturn = new TopupReturn(reload, (state) => {
		showState(banner, state, topupReturn);
		if (state === 'success') void loadEntries();
	});

	async function load() {
		balance = await getBalance();
		figure.textContent = amount(total(balance), balance.currency);
		problem.textContent = '';
		return balance;
	}

	async function reload() {
		try {
			return await load();
		} catch {
			problem.textContent = text.refresh_failed;
			return null;
		}
	}

	async function loadEntries() {
		const ledger = await getLedger().catch(() => []);
		entries.replaceChildren(
			...(ledger.length
				? ledger.map(entryRow)
				: [element('li', { class: 'quiet' }, text.history_empty)])
		);
	}

	async function loadPackages() {
		const amounts = (await getPricing().catch(() => null))?.topup_amounts_rub ?? [];
		const offered = amounts.length ? amounts : DEFAULT_PACKAGES_RUB;
		packages.replaceChildren(...offered.map((rubles) => packageButton(100 * rubles)));
		customAmount.hidden = amounts.length > 0;
	}

	function packageButton(kopeks) {
		const button = element(
			'button',
			{ onclick: () => topUp(kopeks, button) },
			roundAmount(kopeks, balance.currency)
		);
		return button;
	}

	function fillCustomAmount() {
		const kopeks = () => Math.round(100 * Number(input.value.replace(',', '.')));
		const proceed = element('button', { class: 'main', disabled: true }, text.proceed);
		const input = element('input', {
			name: 'custom_topup',
			inputmode: 'decimal',
			autocomplete: 'off',
			oninput: () => (proceed.disabled = !(kopeks() > 0))
		});
		customAmount.append(
			element('label', {}, element('span', {}, text.custom_amount), input),
			proceed
		);
		customAmount.addEventListener('submit', (event) => {
			event.preventDefault();
			void topUp(kopeks(), proceed);
		});
	}

	/** Nothing can be pressed or typed while the payment is being made; the pressed button says so. */
	async function topUp(kopeks, pressed) {
		const controls = [...packages.children, ...customAmount.elements];
		const label = pressed.textContent;
		controls.forEach((control) => (control.disabled = true));
		pressed.textContent = text.processing;
		try {
			const back = `${location.origin}${base}/billing/balance?topup_return=1`;
			const { payment_id, confirmation_url } = await createTopup(kopeks, back);
			storeFlow(payment_id, kopeks, balance);
			location.href = confirmation_url;
		} catch (error) {
			problem.textContent = `${text.topup_failed} ${error.message}`;
			pressed.textContent = label;
			controls.forEach((control) => (control.disabled = false));
		}
	}

	fillCustomAmount();
	show(
		header(),
		element(
			'main',
			{},
			banner,
			element(
				'section',
				{ class: 'card' },
				element('h1', {}, text.balance),
				figure,
				element('p', { class: 'quiet' }, text.available),
				problem
			),
			element(
				'section',
				{ class: 'card' },
				element('h2', {}, text.top_up),
				element('p', { class: 'quiet' }, text.top_up_text),
				packages,
				customAmount,
				element('p', { class: 'quiet trust' }, text.trust)
			),
			element('section', { class: 'card' }, element('h2', {}, text.history), entries)
		)
	);

	load()
		.then(() => {
			void loadPackages();
			void loadEntries();
			topupReturn.start(balance);
		})
		.catch((error) => {
			if (error.status === 401) {
				localStorage.removeItem('token');
				askToSignIn();
			} else {
				problem.textContent = text.load_failed;
				problem.append(element('button', { onclick: () => location.reload() }, text.retry));
			}
		});
	return () => topupReturn.stop();
}

/** Have the person sign in, and come back here. */
export function askToSignIn() {
	move(`/auth?redirect=${encodeURIComponent(path() + location.search)}`, { replace: true });
}

function header() {
	const signOut = () => {
		localStorage.removeItem('token');
		move('/auth');
	};
	return element(
		'header',
		{},
		element('a', { href: `${base}/`, 'data-inside': true }, text.home),
		element('button', { class: 'plain', onclick: signOut }, text.sign_out)
	);
}

function showState(banner, state, topupReturn) {
	const dismiss = () => {
		topupReturn.stop();
		banner.hidden = true;
	};
	const refresh = async ({ target }) => {
		target.disabled = true;
		await topupReturn.refresh();
		target.disabled = false;
	};
	banner.hidden = false;
	banner.dataset.state = state;
	banner.replaceChildren(
		element('span', { class: 'sign', 'aria-hidden': 'true' }),
		element(
			'div',
			{},
			element('p', { class: 'title' }, text[state]),
			element('p', { class: 'quiet' }, text[`${state}_text`]),
			state === 'success' ? null : element('button', { onclick: refresh }, text.refresh)
		),
		element('button', { class: 'plain close', 'aria-label': text.dismiss, onclick: dismiss }, '×')
	);
}

function entryRow({ type, amount_kopeks, currency, created_at }) {
	return element(
		'li',
		{},
		element(
			'span',
			{},
			element('span', { class: 'title' }, type === 'topup' ? text.entry_topup : text.entry_other),
			element('span', { class: 'quiet' }, moment(created_at))
		),
		element('span', { class: 'sum' }, change(amount_kopeks, currency))
	);
}
