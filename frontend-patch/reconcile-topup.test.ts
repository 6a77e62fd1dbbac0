import { afterEach, beforeEach, describe, expect, it, test, vi } from 'vitest';
import {
	FLOW_KEY,
	reconcilePendingTopups,
	reconcileTopup,
	reconcileTopupOnReturn,
	TopupReconcileError,
	type PendingTopupsStep,
	type TopupReconcileStep
} from './reconcile-topup';

const START = Date.parse('2026-02-11T12:00:00Z');
const TEN_MINUTES = 600;
const ID = '2c5d1a9e-000f-5000-8000-1b68e7b15f3f';
const PENDING = answer('pending', 'pending');
const PAID = { ...answer('succeeded', 'succeeded'), credited: true };

function answer(provider: string, payment: string | null) {
	return { payment_id: ID, provider_status: provider, payment_status: payment, credited: false };
}

type Reply = () => Response | Promise<Response>;

const says =
	(status: number, body: unknown, retryAfter?: number | string): Reply =>
	() => {
		const text = typeof body === 'string' ? body : JSON.stringify(body);
		const headers = retryAfter === undefined ? {} : { 'Retry-After': String(retryAfter) };
		return new Response(text, { status, headers });
	};
const refuses = (status: number, retryAfter?: number | string): Reply =>
	says(status, { detail: 'No.' }, retryAfter);
const undecided = (retryAfter?: number | string): Reply => says(200, PENDING, retryAfter);
const paid = says(200, PAID);
const unreachable: Reply = () => Promise.reject(new TypeError('Failed to fetch'));
const silent: Reply = () => new Promise(() => undefined);

const fetched = vi.fn<typeof fetch>();
/** When each question was sent, in seconds after the start. */
let asked: number[];

/** Answers in this order; the last one on and on. */
function server(...replies: Reply[]): void {
	fetched.mockImplementation(async (_url, init) => {
		if (init?.signal?.aborted) throw new DOMException('aborted', 'AbortError');
		asked.push(now());
		const reply = replies.length > 1 ? replies.shift() : replies[0];
		return (reply ?? unreachable)();
	});
}

const now = (): number => (Date.now() - START) / 1000;
const seconds = (count: number): Promise<unknown> => vi.advanceTimersByTimeAsync(count * 1000);

function store(content: unknown): void {
	localStorage.setItem(FLOW_KEY, typeof content === 'string' ? content : JSON.stringify(content));
}

function setVisibility(state: DocumentVisibilityState): void {
	vi.spyOn(document, 'visibilityState', 'get').mockReturnValue(state);
	document.dispatchEvent(new Event('visibilitychange'));
}

let leave: AbortController;

/** The balance page's return, under way until the test ends. */
function returned(options: { signal?: AbortSignal; apiBaseUrl?: string } = {}) {
	leave = new AbortController();
	const steps: TopupReconcileStep[] = [];
	const onStep = (step: TopupReconcileStep) => steps.push(step);
	let last: TopupReconcileStep | null | undefined;
	void reconcileTopupOnReturn({
		token: 'secret',
		onStep,
		signal: leave.signal,
		...options
	}).then((step) => (last = step));
	return { steps, last: () => last, states: () => steps.map(({ state }) => state) };
}

/** A balance page without a stored flow, asking until the test ends. */
function visited(options: { signal?: AbortSignal; apiBaseUrl?: string } = {}) {
	leave = new AbortController();
	const steps: PendingTopupsStep[] = [];
	const onStep = (step: PendingTopupsStep) => steps.push(step);
	let last: PendingTopupsStep | undefined;
	void reconcilePendingTopups({
		token: 'secret',
		onStep,
		signal: leave.signal,
		...options
	}).then((step) => (last = step));
	return { steps, last: () => last, states: () => steps.map(({ state }) => state) };
}

beforeEach(() => {
	vi.useFakeTimers({ now: START });
	vi.stubGlobal('fetch', fetched);
	asked = [];
	leave = new AbortController();
	store({ started_at_ms: START - 1000, amount_kopeks: 100000, payment_id: ID });
});

afterEach(() => {
	leave.abort();
	vi.restoreAllMocks();
	vi.unstubAllGlobals();
	vi.useRealTimers();
	localStorage.clear();
});

describe('reconcileTopup', () => {
	it('sends the payment and the token, and resolves to the four keys', async () => {
		server(paid);
		await expect(reconcileTopup('secret', ID)).resolves.toEqual(PAID);
		expect(fetched).toHaveBeenCalledExactlyOnceWith('/api/v1/billing/topup/reconcile', {
			method: 'POST',
			headers: { 'Content-Type': 'application/json', Authorization: 'Bearer secret' },
			body: JSON.stringify({ payment_id: ID }),
			signal: null
		});
	});

	it('asks below another base', async () => {
		server(paid);
		await reconcileTopup('secret', ID, '/chat/api/v1');
		expect(fetched.mock.calls[0]?.[0]).toBe('/chat/api/v1/billing/topup/reconcile');
	});

	test.each<[string, Reply, Partial<TopupReconcileError>]>([
		['detail', refuses(403), { status: 403, detail: 'No.', retryAfter: null }],
		['Retry-After', refuses(429, 17), { status: 429, detail: 'No.', retryAfter: 17 }],
		['a page', says(502, '<html>'), { status: 502, detail: 'Request failed with status 502' }],
		['no text', says(422, { detail: [{}] }), { detail: 'Request failed with status 422' }],
		['null', says(500, null), { detail: 'Request failed with status 500' }],
		['another 200', says(200, '<html>'), { status: 200, detail: 'Request failed with status 200' }],
		['nobody', unreachable, { status: 0, detail: 'TypeError: Failed to fetch', retryAfter: null }]
	])('throws what the server says: %s', async (_name, reply, expected) => {
		server(reply);
		const error: unknown = await reconcileTopup('secret', ID).catch((e: unknown) => e);
		expect(error).toBeInstanceOf(TopupReconcileError);
		expect(error).toBeInstanceOf(Error);
		expect(error).toMatchObject(expected);
		expect(error).toHaveProperty('message', (error as TopupReconcileError).detail);
	});
});

describe('the stored flow', () => {
	test.each<[string, unknown]>([
		['nothing', ''],
		['no JSON', '{'],
		['null', null],
		['a list', []],
		['a text', '"text"'],
		['no id', { started_at_ms: START }],
		['an id of another kind', { started_at_ms: START, payment_id: 7 }],
		['an empty id', { started_at_ms: START, payment_id: '' }],
		['a path', { started_at_ms: START, payment_id: '../refunds' }],
		['a line break', { started_at_ms: START, payment_id: `${ID}\n` }],
		['a long id', { started_at_ms: START, payment_id: 'x'.repeat(65) }],
		['no start', { payment_id: ID }],
		['a start in words', { started_at_ms: 'now', payment_id: ID }],
		['a start without end', `{"started_at_ms":-1e999,"payment_id":"${ID}"}`],
		['an old one', { started_at_ms: START - TEN_MINUTES * 1000, payment_id: ID }]
	])('does not count: %s', async (_name, content) => {
		server(paid);
		store(content);
		const page = returned();
		await seconds(TEN_MINUTES);
		expect(page.last()).toBeNull();
		expect(page.steps).toEqual([]);
		expect(asked).toEqual([]);
	});

	it('does not count where storage is forbidden', async () => {
		vi.stubGlobal('localStorage', {
			getItem: () => {
				throw new DOMException('denied', 'SecurityError');
			}
		});
		await expect(reconcileTopupOnReturn({ token: 'secret' })).resolves.toBeNull();
	});

	it('does not count when there is none', async () => {
		localStorage.clear();
		await expect(reconcileTopupOnReturn({ token: 'secret' })).resolves.toBeNull();
	});

	it.each([START + 3_600_000, 1e308])(
		'counts ten minutes when it is from the future',
		async (at) => {
			server(undecided(34));
			store({ started_at_ms: at, payment_id: ID });
			const page = returned();
			await seconds(TEN_MINUTES);
			expect(page.last()).toEqual({ state: 'expired' });
		}
	);

	it('is read once: the page may clear it', async () => {
		server(undecided(3), paid);
		const page = returned();
		localStorage.clear();
		await seconds(3);
		expect(page.last()?.state).toBe('credited');
	});

	it('is left as it is', async () => {
		const stored = localStorage.getItem(FLOW_KEY);
		server(paid);
		returned();
		await seconds(1);
		expect(localStorage.getItem(FLOW_KEY)).toBe(stored);
	});
});

describe('the schedule', () => {
	it('begins at once, before anything else can run', () => {
		server(paid);
		returned({ apiBaseUrl: '/chat/api/v1' });
		expect(asked).toEqual([0]);
		expect(fetched.mock.calls[0]?.[0]).toBe('/chat/api/v1/billing/topup/reconcile');
	});

	it('is one question for a normal paid return', async () => {
		server(paid);
		const page = returned();
		await seconds(TEN_MINUTES);
		expect(asked).toEqual([0]);
		expect(page.last()).toEqual({ state: 'credited', result: PAID });
		expect(page.states()).toEqual(['asking', 'credited']);
	});

	it("is the server's: six questions in the first minute of an undecided return", async () => {
		server(...[3, 5, 8, 13, 21, 34].map(undecided));
		const page = returned();
		await seconds(60);
		expect(asked).toEqual([0, 3, 8, 16, 29, 50]);
		expect(page.last()).toBeUndefined();
		await seconds(59);
		expect(asked.slice(6)).toEqual([84, 118]);
	});

	it('reports every step', async () => {
		server(undecided(3), refuses(503, 5), paid);
		const page = returned();
		await seconds(8);
		const error: unknown = expect.objectContaining({ status: 503, detail: 'No.', retryAfter: 5 });
		expect(page.steps).toEqual([
			{ state: 'asking' },
			{ state: 'waiting', result: PENDING, error: undefined, retryInMs: 3000 },
			{ state: 'asking' },
			{ state: 'waiting', result: undefined, error, retryInMs: 5000 },
			{ state: 'asking' },
			{ state: 'credited', result: PAID }
		]);
	});

	it('needs no callback', async () => {
		server(paid);
		const last = await reconcileTopupOnReturn({ token: 'secret' });
		expect(last?.state).toBe('credited');
	});

	test.each<[string, Reply]>([
		['without Retry-After', undecided()],
		['with a date in it', undecided('Wed, 11 Feb 2026 12:00:00 GMT')],
		['with zero in it', undecided(0)],
		['with a negative one', undecided(-5)]
	])('grows by itself when the answer is undecided %s', async (_name, reply) => {
		server(reply);
		returned();
		await seconds(60);
		expect(asked).toEqual([0, 3, 9, 21, 45]);
	});
});

describe('backing off', () => {
	test.each<[string, Reply]>([
		['500', refuses(500)],
		['502', refuses(502)],
		['a gateway page', says(504, '<html>')],
		['a page in place of the answer', says(200, '<html>')],
		['429 without Retry-After', refuses(429)],
		['offline', unreachable]
	])('grows up to a minute: %s', async (_name, reply) => {
		server(reply);
		returned();
		await seconds(300);
		expect(asked).toEqual([0, 3, 9, 21, 45, 93, 153, 213, 273]);
	});

	it('honours Retry-After, and grows all the same', async () => {
		server(refuses(503, 5));
		returned();
		await seconds(60);
		expect(asked).toEqual([0, 5, 11, 23, 47]);
	});

	it('waits as long as it is told', async () => {
		server(refuses(429, 50), paid);
		returned();
		await seconds(49.9);
		expect(asked).toEqual([0]);
		await seconds(0.1);
		expect(asked).toEqual([0, 50]);
	});

	it("ends with the server's next answer", async () => {
		server(refuses(500), refuses(500), undecided(3), refuses(500), paid);
		returned();
		await seconds(30);
		expect(asked).toEqual([0, 3, 9, 12, 15]);
	});

	it('asks when the connection is back', async () => {
		server(unreachable, unreachable, unreachable, paid);
		const page = returned();
		await seconds(10);
		expect(asked).toEqual([0, 3, 9]);
		window.dispatchEvent(new Event('online'));
		await seconds(0);
		expect(asked).toEqual([0, 3, 9, 10]);
		expect(page.last()?.state).toBe('credited');
	});

	it('does not take a new connection for leave to hurry', async () => {
		server(refuses(503, 20));
		returned();
		await seconds(10);
		window.dispatchEvent(new Event('online'));
		await seconds(9.9);
		expect(asked).toEqual([0]);
	});

	it('asks again when there is no answer', async () => {
		server(silent, paid);
		const page = returned();
		await seconds(22.9);
		expect(asked).toEqual([0]);
		await seconds(0.1);
		expect(asked).toEqual([0, 23]);
		expect(page.steps[1]).toMatchObject({
			state: 'waiting',
			error: { status: 0, detail: 'No answer' }
		});
	});
});

describe('a hidden page', () => {
	it('does not ask', async () => {
		server(paid);
		setVisibility('hidden');
		const page = returned();
		await seconds(60);
		expect(asked).toEqual([]);
		setVisibility('visible');
		await seconds(0);
		expect(asked).toEqual([60]);
		expect(page.last()?.state).toBe('credited');
	});

	it('pauses between questions, and asks when it is seen again', async () => {
		server(undecided(3), paid);
		returned();
		await seconds(1);
		setVisibility('hidden');
		await seconds(100);
		expect(asked).toEqual([0]);
		setVisibility('visible');
		await seconds(0);
		expect(asked).toEqual([0, 101]);
	});

	it('does not ask early for being looked at', async () => {
		server(undecided(8));
		returned();
		for (let i = 0; i < 7; i += 1) {
			setVisibility('hidden');
			setVisibility('visible');
			await seconds(1);
		}
		expect(asked).toEqual([0]);
		await seconds(1);
		expect(asked).toEqual([0, 8]);
	});

	it('stays silent when the connection is back', async () => {
		server(unreachable);
		returned();
		await seconds(1);
		setVisibility('hidden');
		window.dispatchEvent(new Event('online'));
		await seconds(60);
		expect(asked).toEqual([0]);
	});

	it('is too late after ten minutes', async () => {
		server(paid);
		setVisibility('hidden');
		const page = returned();
		await seconds(TEN_MINUTES);
		setVisibility('visible');
		await seconds(0);
		expect(page.last()).toEqual({ state: 'expired' });
		expect(asked).toEqual([]);
	});
});

describe('the end', () => {
	test.each([400, 401, 403, 404, 405, 409, 422])('comes with %d', async (status) => {
		server(undecided(3), refuses(status, 5));
		const page = returned();
		await seconds(TEN_MINUTES);
		expect(asked).toEqual([0, 3]);
		expect(page.last()).toMatchObject({ state: 'refused', error: { status, detail: 'No.' } });
		expect(page.states()).toEqual(['asking', 'waiting', 'asking', 'refused']);
	});

	it.each(['canceled', null])('comes with a cancellation (our record: %s)', async (ours) => {
		const canceled = answer('canceled', ours);
		server(undecided(3), says(200, canceled));
		const page = returned();
		await seconds(TEN_MINUTES);
		expect(asked).toEqual([0, 3]);
		expect(page.last()).toEqual({ state: 'canceled', result: canceled });
	});

	it('does not come with a cancellation of our record alone', async () => {
		server(says(200, answer('pending', 'canceled'), 3), paid);
		const page = returned();
		await seconds(3);
		expect(page.last()?.state).toBe('credited');
	});

	it('takes a credit for a credit whatever else is said', async () => {
		server(says(200, { ...answer('canceled', 'canceled'), credited: true }));
		const page = returned();
		await seconds(1);
		expect(page.last()?.state).toBe('credited');
	});

	it('comes ten minutes after the start', async () => {
		server(undecided(34));
		const page = returned();
		await seconds(TEN_MINUTES - 1.001);
		expect(page.last()).toBeUndefined();
		await seconds(0.001);
		expect(page.last()).toEqual({ state: 'expired' });
		const questions = asked.length;
		await seconds(TEN_MINUTES);
		expect(asked).toHaveLength(questions);
	});

	test.each(['900', '1e999'])(
		'comes in time whatever the server says: %s s',
		async (retryAfter) => {
			server(undecided(retryAfter));
			const page = returned();
			await seconds(TEN_MINUTES);
			expect(page.last()).toEqual({ state: 'expired' });
			expect(asked).toEqual([0]);
		}
	);
});

describe('aborting', () => {
	it('before it begins', async () => {
		server(paid);
		const page = returned({ signal: AbortSignal.abort() });
		await seconds(0);
		expect(asked).toEqual([]);
		expect(page.last()).toEqual({ state: 'aborted' });
	});

	it('while waiting', async () => {
		server(undecided(3));
		const abort = new AbortController();
		const page = returned({ signal: abort.signal });
		await seconds(1);
		abort.abort();
		await seconds(0);
		expect(page.last()).toEqual({ state: 'aborted' });
		await seconds(60);
		expect(asked).toEqual([0]);
	});

	it('while hidden', async () => {
		setVisibility('hidden');
		const abort = new AbortController();
		const page = returned({ signal: abort.signal });
		await seconds(1);
		abort.abort();
		await seconds(0);
		expect(page.states()).toEqual(['aborted']);
	});

	it('while asking', async () => {
		server(silent);
		const abort = new AbortController();
		const page = returned({ signal: abort.signal });
		await seconds(1);
		abort.abort();
		await seconds(0);
		expect(page.states()).toEqual(['asking', 'aborted']);
		expect(fetched.mock.calls[0]?.[1]?.signal?.aborted).toBe(true);
	});

	it.each(['asking', 'waiting'])('out of the callback, when %s', async (state) => {
		server(undecided(3));
		const abort = new AbortController();
		const last = reconcileTopupOnReturn({
			token: 'secret',
			signal: abort.signal,
			onStep: (step) => {
				if (step.state === state) abort.abort();
			}
		});
		await seconds(0);
		await expect(last).resolves.toEqual({ state: 'aborted' });
		expect(asked).toHaveLength(state === 'asking' ? 0 : 1);
	});
});

describe('reconcilePendingTopups', () => {
	const OTHER = { ...PAID, payment_id: '3c5d1a9e-000f-5000-8000-1b68e7b15f3f' };
	const lists = (payments: object[], retryAfter?: number): Reply =>
		says(200, { payments }, retryAfter);

	it('asks about nothing in particular, with no stored flow', async () => {
		localStorage.clear();
		server(lists([]));
		const page = visited({ apiBaseUrl: '/chat/api/v1' });
		expect(asked).toEqual([0]); // before anything else can run
		await seconds(0);
		const signal: unknown = expect.any(AbortSignal);
		expect(fetched).toHaveBeenCalledExactlyOnceWith(
			'/chat/api/v1/billing/topup/reconcile/pending',
			{ method: 'POST', headers: { Authorization: 'Bearer secret' }, body: null, signal }
		);
		expect(page.steps).toEqual([{ state: 'asking' }, { state: 'done', result: { payments: [] } }]);
	});

	it('asks by its id about one that was open and is not listed any more', async () => {
		server(lists([PENDING], 3), lists([]), says(200, PAID));
		const page = visited();
		await seconds(TEN_MINUTES);
		expect(asked).toEqual([0, 3, 3]);
		expect(page.steps.filter(({ state }) => state === 'credited')).toEqual([
			{ state: 'credited', result: { payments: [PAID] } }
		]);
		expect(page.last()?.state).toBe('done');
	});

	it('says nothing of one that is gone and was not credited', async () => {
		server(lists([PENDING], 3), lists([]), refuses(409));
		const page = visited();
		await seconds(TEN_MINUTES);
		expect(page.states()).not.toContain('credited');
		expect(page.last()).toEqual({ state: 'done', result: { payments: [] } });
	});

	it('ends when none can change any more', async () => {
		const held = { ...PENDING, provider_status: 'succeeded', reason: 'amount_mismatch' };
		server(lists([held]));
		const page = visited();
		await seconds(TEN_MINUTES);
		expect(asked).toEqual([0]);
		expect(page.last()).toEqual({ state: 'done', result: { payments: [held] } });
	});

	it("is asked by the server's schedule, and reports each credit as it comes", async () => {
		server(
			lists([PENDING, { ...OTHER, credited: false }], 3),
			lists([PENDING, OTHER], 5),
			lists([PAID])
		);
		const page = visited();
		await seconds(TEN_MINUTES);
		expect(asked).toEqual([0, 3, 8]);
		expect(page.states()).toEqual(
			['asking', 'waiting'].concat(
				['asking', 'credited', 'waiting'],
				['asking', 'credited', 'done']
			)
		);
		const credited = page.steps.filter(({ state }) => state === 'credited');
		expect(credited.map(({ result }) => result)).toEqual([
			{ payments: [OTHER] },
			{ payments: [PAID] }
		]);
	});

	it('reports a credit once, also where it stays listed', async () => {
		server(lists([OTHER, PENDING], 3), lists([OTHER, PENDING], 3), lists([OTHER]));
		const page = visited();
		await seconds(TEN_MINUTES);
		expect(page.states().filter((state) => state === 'credited')).toHaveLength(1);
	});

	test.each<[string, Reply]>([
		['500', refuses(500)],
		['429', refuses(429)],
		['another 200', says(200, PAID)],
		['offline', unreachable]
	])('backs off as a return does: %s', async (_name, reply) => {
		server(reply);
		visited();
		await seconds(100);
		expect(asked).toEqual([0, 3, 9, 21, 45, 93]);
	});

	test.each([401, 403, 404, 405])('ends with %d', async (status) => {
		server(refuses(status, 5));
		const page = visited();
		await seconds(TEN_MINUTES);
		expect(asked).toEqual([0]);
		expect(page.last()).toMatchObject({ state: 'refused', error: { status } });
	});

	it('ends after ten minutes', async () => {
		server(lists([PENDING], 34));
		const page = visited();
		await seconds(TEN_MINUTES - 0.001);
		expect(page.last()).toBeUndefined();
		await seconds(0.001);
		expect(page.last()).toEqual({ state: 'expired' });
	});

	it('rests while the page is hidden', async () => {
		server(lists([]));
		setVisibility('hidden');
		visited();
		await seconds(60);
		expect(asked).toEqual([]);
		setVisibility('visible');
		await seconds(0);
		expect(asked).toEqual([60]);
	});

	it('ends with the signal', async () => {
		server(lists([PENDING], 3));
		const page = visited();
		await seconds(1);
		leave.abort();
		await seconds(60);
		expect(page.last()).toEqual({ state: 'aborted' });
		expect(asked).toEqual([0]);
	});
});
