import { afterEach, beforeEach, describe, expect, it, test, vi } from 'vitest';
import { FLOW_KEY } from './reconcile-topup';

const START = Date.parse('2026-02-11T12:00:00Z');
const ID = '2c5d1a9e-000f-5000-8000-1b68e7b15f3f';
const FLOW = JSON.stringify({ started_at_ms: START - 1000, payment_id: ID });

/** The addresses' ends, and what is in the answers of the second: all that is open. */
const RETURN = '/billing/topup/reconcile';
const PENDING = `${RETURN}/pending`;
const OPEN = {
	payment_id: ID,
	provider_status: 'pending',
	payment_status: 'pending',
	credited: false
};
const CREDITED = { ...OPEN, provider_status: 'succeeded', credited: true };

const fetched = vi.fn<typeof fetch>();
const reload = vi.fn<() => void>();
const place = { origin: 'https://chat.example', pathname: '/billing/balance', reload };

/** When each question was sent, in seconds after the start. */
let asked: number[];
let navigation: EventTarget;
let closePage: () => void;
let inTheMiddle: Element | null;

/** Pending until so many seconds after the start, and paid from then on. */
function settlesAfter(due: number): void {
	fetched.mockImplementation(() => {
		const elapsed = (Date.now() - START) / 1000;
		asked.push(elapsed);
		const credited = elapsed >= due;
		const body = JSON.stringify({ payment_id: ID, provider_status: 'pending', credited });
		return Promise.resolve(new Response(body, { headers: { 'Retry-After': '10' } }));
	});
}

/** What is open, answer for answer; the last one on and on. Undecided ones are to be asked about after 10 s. */
function lists(...answers: object[][]): void {
	fetched.mockImplementation(() => {
		asked.push((Date.now() - START) / 1000);
		const payments = (answers.length > 1 ? answers.shift() : answers[0]) ?? [];
		const headers = payments.includes(OPEN) ? { 'Retry-After': '10' } : {};
		return Promise.resolve(new Response(JSON.stringify({ payments }), { headers }));
	});
}

const paths = (): unknown[] =>
	fetched.mock.calls.map(([url]) => (url as string).replace('https://chat.example/api/v1', ''));

const seconds = (count: number): Promise<unknown> => vi.advanceTimersByTimeAsync(count * 1000);

/** Load the page anew: the script runs from its beginning. */
async function load(pathname = '/billing/balance'): Promise<void> {
	closePage();
	place.pathname = pathname;
	vi.resetModules();
	const added = [window, document].map((target) => ({
		target,
		listen: vi.spyOn(target as Window, 'addEventListener')
	}));
	await import('./loader');
	const remove = added.flatMap(({ target, listen }) => {
		const calls = [...listen.mock.calls];
		listen.mockRestore();
		return calls.map(([type, listener]) => () => {
			target.removeEventListener(type, listener);
		});
	});
	closePage = () => {
		place.pathname = '/closed';
		window.dispatchEvent(new Event('pagehide')); // ends the visit, and what it listens to
		vi.clearAllTimers();
		for (const listener of remove) listener();
	};
}

function move(pathname: string): void {
	place.pathname = pathname;
	navigation.dispatchEvent(new Event('currententrychange'));
}

/** Leave and be back: from the browser's memory (`persisted`), or for the first time. */
function show(persisted: boolean): void {
	if (persisted) window.dispatchEvent(new Event('pagehide'));
	window.dispatchEvent(Object.assign(new Event('pageshow'), { persisted }));
}

function setVisibility(state: DocumentVisibilityState): void {
	vi.spyOn(document, 'visibilityState', 'get').mockReturnValue(state);
	document.dispatchEvent(new Event('visibilitychange'));
}

/** Put elements on the page; jsdom lays nothing out, so what is not hidden counts as shown. */
function put(html: string): HTMLElement {
	document.body.innerHTML = html;
	return document.body.firstElementChild as HTMLElement;
}

function press(button: HTMLElement): void {
	button.dispatchEvent(new MouseEvent('click', { bubbles: true }));
}

function type(field: HTMLElement, value: string): void {
	(field as HTMLInputElement).value = value;
	field.dispatchEvent(new Event('input', { bubbles: true }));
}

beforeEach(() => {
	vi.useFakeTimers({ now: START });
	inTheMiddle = null;
	document.elementFromPoint = () => inTheMiddle;
	vi.spyOn(Element.prototype, 'getClientRects').mockImplementation(function (this: Element) {
		const isShown = getComputedStyle(this).display !== 'none';
		return (isShown ? [new DOMRect()] : []) as unknown as DOMRectList;
	});
	vi.stubGlobal('fetch', fetched);
	vi.stubGlobal('location', place);
	navigation = new EventTarget();
	vi.stubGlobal('navigation', navigation);
	closePage = () => undefined;
	asked = [];
	settlesAfter(0);
	localStorage.setItem('token', 'secret');
	localStorage.setItem(FLOW_KEY, FLOW);
});

afterEach(() => {
	closePage();
	vi.unstubAllGlobals();
	vi.restoreAllMocks();
	vi.useRealTimers();
	document.body.replaceChildren();
	localStorage.clear();
	sessionStorage.clear();
});

describe('the page', () => {
	test.each([
		['/billing/balance', 'https://chat.example/api/v1'],
		['/billing/balance/', 'https://chat.example/api/v1'],
		['/chat/billing/balance', 'https://chat.example/chat/api/v1'],
		['//evil.example/billing/balance', 'https://chat.example//evil.example/api/v1']
	])('%s asks below its own base, at its own origin', async (pathname, base) => {
		await load(pathname);
		expect(fetched).toHaveBeenCalledOnce();
		expect(fetched.mock.calls[0]?.[0]).toBe(`${base}/billing/topup/reconcile`);
	});

	test.each(['/', '/billing', '/billing/balances', '/billing/balance/history', '/c/1', '/auth'])(
		'%s asks nothing',
		async (pathname) => {
			await load(pathname);
			await seconds(60);
			show(true);
			expect(fetched).not.toHaveBeenCalled();
			expect(reload).not.toHaveBeenCalled();
		}
	);

	test.each([FLOW, null])('asks nothing without a token (stored: %s)', async (flow) => {
		localStorage.clear();
		if (flow) localStorage.setItem(FLOW_KEY, flow);
		await load();
		await seconds(60);
		expect(fetched).not.toHaveBeenCalled();
		expect(reload).not.toHaveBeenCalled();
	});

	it('is left in peace where storage is forbidden', async () => {
		vi.stubGlobal('localStorage', {
			getItem: () => {
				throw new DOMException('denied', 'SecurityError');
			}
		});
		await load();
		await seconds(60);
		expect(fetched).not.toHaveBeenCalled();
	});

	it('sends the token it finds', async () => {
		await load();
		const headers = fetched.mock.calls[0]?.[1]?.headers;
		expect(headers).toMatchObject({ Authorization: 'Bearer secret' });
	});
});

describe('the reload', () => {
	it('does not come when the page has seen the credit', async () => {
		settlesAfter(60);
		await load();
		await seconds(64);
		expect(asked).toContain(60);
		localStorage.removeItem(FLOW_KEY);
		await seconds(60);
		expect(reload).not.toHaveBeenCalled();
	});

	it('comes a few seconds after a credit that the page has not seen', async () => {
		settlesAfter(60);
		await load();
		await seconds(64.9);
		expect(reload).not.toHaveBeenCalled();
		await seconds(0.1);
		expect(reload).toHaveBeenCalledOnce();
	});

	it('waits until the page has polled to its end', async () => {
		settlesAfter(10);
		await load();
		await seconds(22.9);
		expect(reload).not.toHaveBeenCalled();
		await seconds(0.1);
		expect(reload).toHaveBeenCalledOnce();
	});

	it('comes once, and nothing is asked after it', async () => {
		await load();
		await seconds(23);
		expect(reload).toHaveBeenCalledOnce();
		await load();
		await seconds(60);
		expect(reload).toHaveBeenCalledOnce();
		expect(asked).toEqual([0]);
	});

	it('comes for the next top-up again', async () => {
		await load();
		await seconds(23);
		localStorage.setItem(FLOW_KEY, FLOW.replace('2c5d', '3c5d'));
		await load();
		await seconds(23);
		expect(reload).toHaveBeenCalledTimes(2);
	});

	it('does not come for a newer top-up than the credited one', async () => {
		await load();
		localStorage.setItem(FLOW_KEY, FLOW.replace('2c5d', '3c5d'));
		await seconds(60);
		expect(reload).not.toHaveBeenCalled();
	});

	it('does not come without a credit', async () => {
		fetched.mockResolvedValue(new Response('{"detail": "No."}', { status: 403 }));
		await load();
		await seconds(60);
		expect(fetched).toHaveBeenCalledOnce();
		expect(reload).not.toHaveBeenCalled();
	});

	it('belongs to the visit: leaving and coming back begins a new one', async () => {
		await load();
		await seconds(5);
		move('/c/1');
		await seconds(1);
		move('/billing/balance');
		await seconds(22.9);
		expect(reload).not.toHaveBeenCalled();
		await seconds(0.1);
		expect(reload).toHaveBeenCalledOnce();
	});

	test.each([true, false])('does not come on another page (told of the move: %s)', async (told) => {
		await load();
		await seconds(1);
		place.pathname = '/c/1';
		if (told) move('/c/1');
		await seconds(60);
		expect(reload).not.toHaveBeenCalled();
	});
});

describe('the reload waits', () => {
	const DIALOGS = [
		'<div role="dialog"></div>',
		'<div role="alertdialog"></div>',
		'<div aria-modal="true"></div>',
		'<dialog open></dialog>'
	];

	test.each(DIALOGS)('while %s is open', async (html) => {
		const dialog = put(html);
		await load();
		await seconds(120);
		expect(reload).not.toHaveBeenCalled();
		dialog.remove();
		await seconds(1);
		expect(reload).toHaveBeenCalledOnce();
		await seconds(60);
		expect(reload).toHaveBeenCalledOnce();
	});

	test.each(['display: none', 'visibility: hidden'])('not for a dialog with %s', async (style) => {
		put(`<div role="dialog" style="${style}"></div>`);
		await load();
		await seconds(23);
		expect(reload).toHaveBeenCalledOnce();
	});

	it('while something without a role covers the page', async () => {
		const cover = put('<div style="position: fixed"><div><p>Terms</p></div></div>');
		inTheMiddle = cover.querySelector('p');
		await load();
		await seconds(120);
		expect(reload).not.toHaveBeenCalled();
		inTheMiddle = put('<main></main>');
		await seconds(1);
		expect(reload).toHaveBeenCalledOnce();
	});

	it('for a dialog that opens after the credit', async () => {
		await load();
		await seconds(20);
		const dialog = put('<div role="dialog"></div>');
		await seconds(30);
		expect(reload).not.toHaveBeenCalled();
		dialog.remove();
		await seconds(1);
		expect(reload).toHaveBeenCalledOnce();
	});

	it('no longer than until the page is turned to, where timers sleep', async () => {
		const dialog = put('<div role="dialog"></div>');
		await load();
		await seconds(60);
		dialog.remove();
		document.dispatchEvent(new Event('visibilitychange'));
		expect(reload).toHaveBeenCalledOnce();
	});

	test.each(['click', 'input', 'keydown'])('half a minute after a %s', async (kind) => {
		await load();
		await seconds(20);
		document.body.dispatchEvent(new Event(kind, { bubbles: true }));
		await seconds(29.9);
		expect(reload).not.toHaveBeenCalled();
		await seconds(1);
		expect(reload).toHaveBeenCalledOnce();
	});

	it('while the request of a pressed button is under way', async () => {
		const button = put('<button><span>Proceed</span></button>') as HTMLButtonElement;
		await load();
		press(button.firstElementChild as HTMLElement);
		button.disabled = true;
		await seconds(120);
		expect(reload).not.toHaveBeenCalled();
		button.disabled = false;
		await seconds(1);
		expect(reload).toHaveBeenCalledOnce();
	});

	it('while an amount that the user chose stays chosen', async () => {
		const button = put('<button aria-pressed="false">1000</button>');
		await load();
		press(button);
		button.setAttribute('aria-pressed', 'true');
		await seconds(120);
		expect(reload).not.toHaveBeenCalled();
		button.setAttribute('aria-pressed', 'false');
		await seconds(1);
		expect(reload).toHaveBeenCalledOnce();
	});

	test.each([
		['is emptied', (field: HTMLElement) => ((field as HTMLInputElement).value = '')],
		[
			'is gone',
			(field: HTMLElement) => {
				field.remove();
			}
		]
	])('until the text that the user typed %s', async (_, end) => {
		const field = put('<input />');
		await load();
		type(field, '500');
		await seconds(120);
		expect(reload).not.toHaveBeenCalled();
		end(field);
		await seconds(1);
		expect(reload).toHaveBeenCalledOnce();
	});

	it('for nothing that the page set by itself', async () => {
		put('<input value="me@example.com" /><button disabled></button><button aria-pressed="true">');
		await load();
		await seconds(23);
		expect(reload).toHaveBeenCalledOnce();
	});

	test.each([
		[
			'the page has shown the credit',
			() => {
				localStorage.removeItem(FLOW_KEY);
			}
		],
		[
			'a newer top-up is stored',
			() => {
				localStorage.setItem(FLOW_KEY, FLOW.replace('2c5d', '3c5d'));
			}
		],
		[
			'the user has left',
			() => {
				move('/c/1');
			}
		],
		['the user has left, untold', () => (place.pathname = '/c/1')]
	])('and never comes once %s', async (_, end) => {
		const dialog = put('<div role="dialog"></div>');
		await load();
		await seconds(60);
		end();
		await seconds(1);
		expect(vi.getTimerCount()).toBe(0);
		dialog.remove();
		document.dispatchEvent(new Event('visibilitychange'));
		await seconds(60);
		expect(reload).not.toHaveBeenCalled();
	});
});

describe('moving inside the page', () => {
	it('asks on arrival', async () => {
		await load('/c/1');
		move('/billing/balance');
		expect(asked).toEqual([0]);
	});

	it('asks once for one visit', async () => {
		await load();
		move('/billing/balance');
		await seconds(5);
		move('/billing/balance');
		expect(asked).toEqual([0]);
	});

	it('stops when the person leaves, and begins again when they are back', async () => {
		settlesAfter(100);
		await load();
		await seconds(5);
		move('/c/1');
		await seconds(30);
		expect(asked).toEqual([0]);
		move('/billing/balance');
		await seconds(10);
		expect(asked).toEqual([0, 35, 45]);
	});

	it('stops also where the browser does not tell', async () => {
		vi.stubGlobal('navigation', undefined);
		settlesAfter(100);
		await load();
		place.pathname = '/c/1';
		await seconds(60);
		expect(asked).toEqual([0]);
	});

	it('finds the token after signing in', async () => {
		localStorage.removeItem('token');
		await load();
		move('/auth');
		localStorage.setItem('token', 'secret');
		move('/billing/balance');
		expect(asked).toEqual([0]);
	});
});

describe('being shown again', () => {
	it('begins anew when the page comes back as it was left', async () => {
		localStorage.removeItem(FLOW_KEY);
		lists([]);
		await load();
		localStorage.setItem(FLOW_KEY, FLOW);
		settlesAfter(0);
		await seconds(50);
		show(true);
		await seconds(0);
		expect(asked).toEqual([0, 50]);
		expect(paths()).toEqual([PENDING, RETURN]);
		await seconds(23);
		expect(reload).toHaveBeenCalledOnce();
	});

	it('ends what was under way', async () => {
		settlesAfter(100);
		await load();
		await seconds(5);
		show(true);
		await seconds(20);
		expect(asked).toEqual([0, 5, 15, 25]);
	});

	it('is nothing new on a normal load', async () => {
		await load();
		show(false);
		await seconds(5);
		expect(asked).toEqual([0]);
	});
});

describe('without a stored top-up', () => {
	beforeEach(() => {
		localStorage.removeItem(FLOW_KEY);
	});

	test.each<[string, string | null]>([
		['none', null],
		['no JSON', '{'],
		['an old one', JSON.stringify({ started_at_ms: START - 600_000, payment_id: ID })]
	])('asks about all that is open: %s', async (_name, flow) => {
		if (flow) localStorage.setItem(FLOW_KEY, flow);
		lists([]);
		await load();
		await seconds(60);
		expect(paths()).toEqual([PENDING]);
		expect(reload).not.toHaveBeenCalled();
	});

	it('leaves that to the return where one is stored', async () => {
		localStorage.setItem(FLOW_KEY, FLOW);
		await load();
		await seconds(60);
		setVisibility('hidden');
		setVisibility('visible');
		expect(paths()).toEqual([RETURN]);
	});

	it('asks until nothing can change', async () => {
		lists([OPEN], [OPEN], [{ ...OPEN, provider_status: 'canceled' }]);
		await load();
		await seconds(60);
		expect(asked).toEqual([0, 10, 20]);
		expect(reload).not.toHaveBeenCalled();
	});

	it('reloads for a credit, soon and once', async () => {
		lists([OPEN], [CREDITED], []);
		await load();
		await seconds(10);
		expect(reload).not.toHaveBeenCalled();
		await seconds(1);
		expect(reload).toHaveBeenCalledOnce();
		await load();
		await seconds(60);
		expect(reload).toHaveBeenCalledOnce();
	});

	it('never reloads again for a payment that stays listed as credited', async () => {
		lists([CREDITED]);
		await load();
		await seconds(1);
		expect(reload).toHaveBeenCalledOnce();
		for (let i = 0; i < 3; i += 1) {
			await load();
			await seconds(60);
			setVisibility('hidden');
			setVisibility('visible');
			await seconds(60);
		}
		expect(reload).toHaveBeenCalledOnce();
	});

	it('reloads for another payment beside it', async () => {
		lists([CREDITED]);
		await load();
		await seconds(1);
		lists([CREDITED, { ...CREDITED, payment_id: ID.replace('2c5d', '3c5d') }]);
		for (let i = 0; i < 2; i += 1) {
			await load();
			await seconds(60);
		}
		expect(reload).toHaveBeenCalledTimes(2);
	});

	it('does not reload for a payment for which the return has done so', async () => {
		localStorage.setItem(FLOW_KEY, FLOW);
		await load();
		await seconds(23);
		expect(reload).toHaveBeenCalledOnce();
		localStorage.removeItem(FLOW_KEY);
		lists([CREDITED]);
		await load();
		await seconds(60);
		expect(reload).toHaveBeenCalledOnce();
	});

	it('reloads once for credits that come while a dialog is open', async () => {
		const dialog = put('<div role="dialog"></div>');
		const other = { ...CREDITED, payment_id: ID.replace('2c5d', '3c5d') };
		lists([OPEN, other], [CREDITED, other]);
		await load();
		await seconds(60);
		expect(asked).toEqual([0, 10]);
		expect(reload).not.toHaveBeenCalled();
		dialog.remove();
		await seconds(1);
		await load();
		await seconds(60);
		expect(reload).toHaveBeenCalledOnce();
	});

	it('waits for text that was typed before the visit', async () => {
		const field = put('<input />');
		lists([]);
		await load();
		type(field, '500');
		await seconds(60);
		lists([CREDITED]);
		setVisibility('hidden');
		setVisibility('visible');
		await seconds(60);
		expect(reload).not.toHaveBeenCalled();
		type(field, '');
		await seconds(31);
		expect(reload).toHaveBeenCalledOnce();
	});

	it('does not reload on another page', async () => {
		put('<div role="dialog"></div>');
		lists([CREDITED]);
		await load();
		await seconds(5);
		place.pathname = '/c/1'; // untold
		document.body.replaceChildren();
		await seconds(60);
		expect(reload).not.toHaveBeenCalled();
		expect(vi.getTimerCount()).toBe(0);
	});

	test.each(['localStorage', 'sessionStorage'])(
		'asks nothing where %s is forbidden',
		async (name) => {
			vi.stubGlobal(name, {
				getItem: () => {
					throw new DOMException('denied', 'SecurityError');
				}
			});
			await load();
			setVisibility('hidden');
			setVisibility('visible');
			await seconds(60);
			expect(fetched).not.toHaveBeenCalled();
		}
	);
});

describe('a page that is looked at again', () => {
	beforeEach(() => {
		localStorage.removeItem(FLOW_KEY);
		lists([]);
	});

	it('asks again, and reloads for a credit', async () => {
		await load();
		setVisibility('hidden');
		await seconds(60);
		expect(asked).toEqual([0]);
		lists([CREDITED]);
		setVisibility('visible');
		await seconds(1);
		expect(asked).toEqual([0, 60]);
		expect(reload).toHaveBeenCalledOnce();
	});

	it('does not ask twice at a time', async () => {
		lists([OPEN]);
		await load();
		await seconds(5);
		setVisibility('hidden');
		setVisibility('visible');
		await seconds(6);
		expect(asked).toEqual([0, 10]);
	});

	it('does not ask while a reload is due', async () => {
		put('<div role="dialog"></div>');
		lists([CREDITED]);
		await load();
		await seconds(3600);
		setVisibility('hidden');
		setVisibility('visible');
		expect(asked).toEqual([0]);
	});

	it('asks also where it was opened, and left hidden, long ago', async () => {
		setVisibility('hidden');
		await load();
		await seconds(3600);
		setVisibility('visible');
		await seconds(60);
		expect(asked).toEqual([3600]);
	});

	it('asks where a return found no last word', async () => {
		localStorage.setItem(FLOW_KEY, FLOW);
		settlesAfter(3600);
		await load();
		await seconds(1);
		setVisibility('hidden');
		await seconds(700);
		lists([CREDITED]);
		setVisibility('visible');
		await seconds(1);
		expect(paths()).toEqual([RETURN, PENDING]);
		expect(reload).toHaveBeenCalledOnce();
	});

	it('asks where a return has ended and the page has cleared it', async () => {
		localStorage.setItem(FLOW_KEY, FLOW);
		settlesAfter(0);
		await load();
		localStorage.removeItem(FLOW_KEY);
		await seconds(60);
		setVisibility('hidden');
		setVisibility('visible');
		expect(paths()).toEqual([RETURN, PENDING]);
	});

	it('asks nothing on another page', async () => {
		await load('/c/1');
		setVisibility('hidden');
		setVisibility('visible');
		expect(asked).toEqual([]);
	});

	it("asks once when it comes back out of the browser's memory", async () => {
		await load();
		window.dispatchEvent(new Event('pagehide'));
		setVisibility('hidden');
		await seconds(60);
		setVisibility('visible');
		window.dispatchEvent(Object.assign(new Event('pageshow'), { persisted: true }));
		await seconds(5);
		expect(asked).toEqual([0, 60]);
	});
});
