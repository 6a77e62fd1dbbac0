import { mount, unmount } from 'svelte';
import { readable } from 'svelte/store';
import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import BalancePage from './balance-page.svelte';

const START = Date.parse('2026-02-11T12:00:00Z');
const ID = '2c5d1a9e-000f-5000-8000-1b68e7b15f3f';
const PENDING = {
	payment_id: ID,
	provider_status: 'pending',
	payment_status: 'pending',
	credited: false
};
const PAID = {
	...PENDING,
	provider_status: 'succeeded',
	payment_status: 'succeeded',
	credited: true
};

const fetched = vi.fn<typeof fetch>();
const getBalance = vi.fn<(token: string) => Promise<{ total: number } | null>>();
const toast = { error: vi.fn<(text: string) => void>() };
const i18n = readable({ t: (text: string) => `translated: ${text}` });

const seconds = (count: number): Promise<unknown> => vi.advanceTimersByTimeAsync(count * 1000);

/** Answers every question in this way from now on. */
function server(status: number, body: unknown, retryAfter = ''): void {
	fetched.mockImplementation(() =>
		Promise.resolve(
			new Response(JSON.stringify(body), { status, headers: { 'Retry-After': retryAfter } })
		)
	);
}

function store(): void {
	const flow = { started_at_ms: START, payment_id: ID, previous_total_kopeks: 0 };
	localStorage.setItem('billing_topup_flow_v1', JSON.stringify(flow));
}

let page: Record<string, unknown> | null = null;

async function open(): Promise<void> {
	page = mount(BalancePage, { target: document.body, props: { getBalance, toast, i18n } });
	await seconds(0);
}

async function close(): Promise<void> {
	const closing = page;
	page = null;
	if (closing) await unmount(closing);
}

const shown = (): string => document.querySelector('output')?.textContent ?? '';
const urls = (): unknown[] => fetched.mock.calls.map(([url]) => url);

beforeEach(() => {
	vi.useFakeTimers({ now: START });
	vi.stubGlobal('fetch', fetched);
	localStorage.setItem('token', 'secret');
	getBalance.mockResolvedValue({ total: 0 });
});

afterEach(async () => {
	await close();
	vi.unstubAllGlobals();
	vi.useRealTimers();
	localStorage.clear();
});

it('asks on return, shows the credit, and asks no more', async () => {
	store();
	server(200, PENDING, '3');
	await open();
	expect(urls()).toEqual(['/chat/api/v1/billing/topup/reconcile']);
	expect(fetched.mock.calls[0]?.[1]).toMatchObject({
		headers: { Authorization: 'Bearer secret' },
		body: JSON.stringify({ payment_id: ID })
	});
	expect(shown()).toBe('0 checking');
	server(200, PAID);
	getBalance.mockResolvedValue({ total: 100000 });
	await seconds(3);
	expect(shown()).toBe('100000 success');
	fetched.mockClear();
	await seconds(600);
	expect(fetched).not.toHaveBeenCalled();
});

it('stops when the page is destroyed', async () => {
	store();
	server(200, PENDING, '3');
	await open();
	await seconds(3);
	expect(fetched).toHaveBeenCalledTimes(2);
	await close();
	await seconds(600);
	expect(fetched).toHaveBeenCalledTimes(2);
});

it('stops also when the page is destroyed while its balance is being read', async () => {
	store();
	server(200, PENDING, '3');
	getBalance.mockReturnValue(new Promise(() => undefined));
	await open();
	await close();
	await seconds(600);
	expect(fetched).toHaveBeenCalledTimes(1);
});

it('says why a top-up is refused', async () => {
	store();
	server(409, { detail: 'No.' });
	await open();
	expect(toast.error).toHaveBeenCalledExactlyOnceWith('translated: No.');
});

it('without a stored top-up asks after all, and leaves alone what is being typed', async () => {
	server(200, { payments: [PENDING] }, '3');
	await open();
	expect(urls()).toEqual(['/chat/api/v1/billing/topup/reconcile/pending']);
	const input = document.querySelector('input');
	if (!input) throw new Error('there is no input');
	input.value = '10';
	input.dispatchEvent(new Event('input'));
	server(200, { payments: [PAID] });
	getBalance.mockResolvedValue({ total: 100000 });
	await seconds(3);
	expect(shown()).toBe('100000 idle');
	expect(input.value).toBe('10');
});

it('asks on a manual refresh', async () => {
	store();
	server(200, PENDING, '3');
	await open();
	fetched.mockClear();
	server(409, { detail: 'No.' });
	document.querySelector('button')?.click();
	await seconds(0);
	expect(urls()).toEqual(['/chat/api/v1/billing/topup/reconcile']);
	expect(toast.error).toHaveBeenCalledExactlyOnceWith('translated: No.');
	expect(getBalance).toHaveBeenCalledTimes(2);
});
