import { afterEach, beforeEach, describe, expect, it, test, vi } from 'vitest';
import { FLOW_KEY } from './reconcile-topup';

const START = Date.parse('2026-02-11T12:00:00Z');
const ID = '2c5d1a9e-000f-5000-8000-1b68e7b15f3f';
const FLOW = JSON.stringify({ started_at_ms: START - 1000, payment_id: ID });

const fetched = vi.fn<typeof fetch>();
const reload = vi.fn<() => void>();
const place = { origin: 'https://chat.example', pathname: '/billing/balance', reload };

/** When each question was sent, in seconds after the start. */
let asked: number[];
let navigation: EventTarget;
let closePage: () => void;

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

const seconds = (count: number): Promise<unknown> => vi.advanceTimersByTimeAsync(count * 1000);

/** Load the page anew: the script runs from its beginning. */
async function load(pathname = '/billing/balance'): Promise<void> {
	closePage();
	place.pathname = pathname;
	vi.resetModules();
	const listen = vi.spyOn(window, 'addEventListener');
	await import('./loader');
	const added = listen.mock.calls.map(([type, listener]) => ({ type, listener }));
	listen.mockRestore();
	closePage = () => {
		vi.clearAllTimers();
		for (const { type, listener } of added) window.removeEventListener(type, listener);
	};
}

function move(pathname: string): void {
	place.pathname = pathname;
	navigation.dispatchEvent(new Event('currententrychange'));
}

function show(persisted: boolean): void {
	window.dispatchEvent(Object.assign(new Event('pageshow'), { persisted }));
}

beforeEach(() => {
	vi.useFakeTimers({ now: START });
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
	vi.useRealTimers();
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

	test.each(['token', FLOW_KEY])('asks nothing without %s', async (key) => {
		localStorage.removeItem(key);
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
		await load();
		localStorage.setItem(FLOW_KEY, FLOW);
		await seconds(50);
		show(true);
		await seconds(0);
		expect(asked).toEqual([50]);
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
