export const FLOW_KEY = 'billing_topup_flow_v1';
export const FLOW_TTL_MS = 10 * 60 * 1000;
const ANSWER_MS = 20 * 1000; // the server answers within 12 s

export interface TopupReconcile {
	payment_id: string;
	provider_status: string | null;
	payment_status: string | null;
	credited: boolean;
}

/** `reason` is there where it could not be reconciled. */
export interface PendingTopup extends TopupReconcile {
	reason?: string;
}

export interface PendingTopups {
	payments: PendingTopup[];
}

/** `detail` is in the server's words; `status` is 0 where the server was not reached. */
export class TopupReconcileError extends Error {
	constructor(
		readonly status: number,
		readonly detail: string,
		readonly retryAfter: number | null
	) {
		super(detail);
	}
}

/** `asking` and `waiting` take turns. */
interface Step<State, Result> {
	state: 'asking' | 'waiting' | 'refused' | 'expired' | 'aborted' | State;
	result?: Result | undefined;
	error?: TopupReconcileError | undefined;
	retryInMs?: number;
}

/** Each state but `asking` and `waiting` is the last one. */
export type TopupReconcileStep = Step<'credited' | 'canceled', TopupReconcile>;

/** `credited` comes between the others, with the payments credited since the last one; `done` is the last one. */
export type PendingTopupsStep = Step<'credited' | 'done', PendingTopups>;

interface Options<Step> {
	token: string;
	apiBaseUrl?: string | undefined;
	signal?: AbortSignal;
	onStep?: (step: Step) => void;
}

type Outcome<R> = { result: R; error?: never } | { result: undefined; error: TopupReconcileError };
type Answer<Result> = Outcome<Result> & { retryAfter: number | null };

const failed = (status: number, detail: string, retryAfter: number | null = null) => {
	const error = new TopupReconcileError(status, detail, retryAfter);
	return { result: undefined, error, retryAfter };
};

const ask = async <Result>(
	{ token, apiBaseUrl = '/api/v1', signal }: Options<never>,
	isAnswer: (body: Record<string, unknown>) => boolean,
	path: string,
	question?: object
): Promise<Answer<Result>> => {
	const json = question && { 'Content-Type': 'application/json' };
	const response = await fetch(`${apiBaseUrl}/billing/topup/reconcile${path}`, {
		method: 'POST',
		headers: { ...json, Authorization: `Bearer ${token}` },
		body: question ? JSON.stringify(question) : null,
		signal: signal ?? null
	}).catch((why: unknown) => String(why));
	if (typeof response === 'string') return failed(0, response);
	const { status, ok, headers } = response;
	const retryAfter = Math.max(0, Number(headers.get('Retry-After'))) || null;
	const body = (await response.json().catch(() => null)) as Record<string, unknown> | null;
	if (ok && body && isAnswer(body)) return { result: body as Result, retryAfter };
	const { detail } = body ?? {};
	const words = typeof detail === 'string' ? detail : `Request failed with status ${status}`;
	return failed(status, words, retryAfter);
};

const askOne = (options: Options<never>, id: string): Promise<Answer<TopupReconcile>> =>
	ask(options, ({ credited }) => typeof credited === 'boolean', '', { payment_id: id });

const askPending = (options: Options<never>): Promise<Answer<PendingTopups>> =>
	ask(options, ({ payments }) => Array.isArray(payments), '/pending');

/** Waits: longer while the page is hidden, shorter when aborted or, after a lost connection, online. */
const pause = (ms: number, lost: boolean, signal?: AbortSignal): Promise<void> =>
	new Promise((resolve) => {
		const over = new AbortController();
		let due = false;
		const check = (event?: Event) => {
			due ||= event?.type !== 'visibilitychange';
			if (!signal?.aborted && (!due || document.visibilityState === 'hidden')) return;
			clearTimeout(timer);
			over.abort();
			resolve();
		};
		const timer = setTimeout(check, ms);
		document.addEventListener('visibilitychange', check, { signal: over.signal });
		signal?.addEventListener('abort', check, { signal: over.signal });
		if (lost) window.addEventListener('online', check, { signal: over.signal });
	});

/** Asks at once and then when the server says so, until `conclude` names the last state, or `endsAt`. */
const poll = async <State extends string, Result>(
	{ signal, onStep }: Options<Step<State, Result>>,
	endsAt: number,
	send: () => Promise<Answer<Result>>,
	conclude: (result: Result, retryAfter: number | null) => State | null
): Promise<Step<State, Result>> => {
	const step = (taken: Step<State, Result>) => {
		onStep?.(taken);
		return taken;
	};
	let wait = 0;
	let backoff = 0;
	let lost = false;
	for (;;) {
		const ready = !wait && document.visibilityState !== 'hidden';
		if (!ready && !signal?.aborted) await pause(wait, lost, signal);
		if (signal?.aborted) return step({ state: 'aborted' });
		if (Date.now() >= endsAt) return step({ state: 'expired' });
		step({ state: 'asking' });
		const { result, error, retryAfter } =
			(await Promise.race([send(), pause(ANSWER_MS, false, signal)])) ?? failed(0, 'No answer');
		const last = result && conclude(result, retryAfter);
		if (last) return step({ state: last, result });
		if (error && error.status >= 400 && error.status < 500 && error.status !== 429) {
			return step({ state: 'refused', error });
		}
		backoff = result && retryAfter ? 0 : Math.min(60, 2 * backoff || 3);
		lost = error?.status === 0;
		wait = Math.min(1000 * Math.max(backoff, retryAfter ?? 0), endsAt - Date.now());
		if (!signal?.aborted) step({ state: 'waiting', result, error, retryInMs: wait });
	}
};

/** The top-up that the person left for, unless it is too old; whatever else is stored counts as none. */
export const readFlow = (): { id: string; endsAt: number } | null => {
	try {
		const stored = JSON.parse(localStorage.getItem(FLOW_KEY) ?? '') as Record<string, unknown>;
		const { payment_id: id, started_at_ms: startedAt } = stored;
		if (typeof id !== 'string' || !/^[\w-]{1,64}$/.test(id)) return null;
		const endsAt = Math.min(Number(startedAt), Date.now()) + FLOW_TTL_MS;
		return Date.now() < endsAt ? { id, endsAt } : null;
	} catch {
		return null;
	}
};

/** Has the server ask the provider about a top-up, and credit it if it was paid. */
export const reconcileTopup = async (
	token: string,
	paymentId: string,
	apiBaseUrl?: string
): Promise<TopupReconcile> => {
	const { result, error } = await askOne({ token, apiBaseUrl }, paymentId);
	if (error) throw error;
	return result;
};

/** Does so about the stored top-up until there is a last word; `null` where none is stored. */
export const reconcileTopupOnReturn = async (
	options: Options<TopupReconcileStep>
): Promise<TopupReconcileStep | null> => {
	const flow = readFlow();
	if (!flow) return null;
	return poll(
		options,
		flow.endsAt,
		() => askOne(options, flow.id),
		({ credited, provider_status: status }) =>
			credited ? 'credited' : status === 'canceled' ? status : null
	);
};

/** Does so about all of the user's open top-ups, for ten minutes at most, until none can change any more. */
export const reconcilePendingTopups = (
	options: Options<PendingTopupsStep>
): Promise<PendingTopupsStep> => {
	const told = new Set<string>();
	let open: string[] = [];
	const send = async () => {
		const answer = await askPending(options);
		const topups = answer.result?.payments;
		if (!topups) return answer;
		// One that was open and is not listed any more was settled by somebody else, by a webhook say.
		const gone = open.filter((id) => !topups.some((topup) => topup.payment_id === id));
		const answers = await Promise.all(gone.map((id) => askOne(options, id)));
		open = topups.filter(({ credited }) => !credited).map((topup) => topup.payment_id);
		topups.push(...answers.flatMap(({ result }) => result ?? []));
		return answer;
	};
	return poll(options, Date.now() + FLOW_TTL_MS, send, (result, retryAfter) => {
		const isNews = (topup: PendingTopup) => topup.credited && !told.has(topup.payment_id);
		const payments = result.payments.filter(isNews);
		payments.forEach(({ payment_id: id }) => told.add(id));
		if (payments.length) options.onStep?.({ state: 'credited', result: { payments } });
		return retryAfter ? null : 'done';
	});
};
