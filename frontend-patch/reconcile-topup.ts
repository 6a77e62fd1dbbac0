export const FLOW_KEY = 'billing_topup_flow_v1';
const FLOW_TTL_MS = 10 * 60 * 1000;
const ANSWER_MS = 20 * 1000; // the server answers within 12 s

export interface TopupReconcile {
	payment_id: string;
	provider_status: string | null;
	payment_status: string | null;
	credited: boolean;
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

/** `asking` and `waiting` take turns; each of the other states is the last one. */
export interface TopupReconcileStep {
	state: 'asking' | 'waiting' | 'credited' | 'canceled' | 'refused' | 'expired' | 'aborted';
	result?: TopupReconcile | undefined;
	error?: TopupReconcileError | undefined;
	retryInMs?: number;
}

const failed = (status: number, detail: string, retryAfter: number | null = null) => {
	const error = new TopupReconcileError(status, detail, retryAfter);
	return { result: undefined, error, retryAfter };
};

const ask = async (token: string, id: string, apiBaseUrl = '/api/v1', signal?: AbortSignal) => {
	const response = await fetch(`${apiBaseUrl}/billing/topup/reconcile`, {
		method: 'POST',
		headers: { 'Content-Type': 'application/json', Authorization: `Bearer ${token}` },
		body: JSON.stringify({ payment_id: id }),
		signal: signal ?? null
	}).catch((why: unknown) => String(why));
	if (typeof response === 'string') return failed(0, response);
	const { status, ok, headers } = response;
	const retryAfter = Math.max(0, Number(headers.get('Retry-After'))) || null;
	const body = (await response.json().catch(() => null)) as Record<string, unknown> | null;
	if (ok && typeof body?.credited === 'boolean') {
		return { result: body as unknown as TopupReconcile, error: undefined, retryAfter };
	}
	const { detail } = body ?? {};
	const words = typeof detail === 'string' ? detail : `Request failed with status ${status}`;
	return failed(status, words, retryAfter);
};

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

/** The top-up that the person left for, unless it is too old; whatever else is stored counts as none. */
const readFlow = (): { id: string; endsAt: number } | null => {
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
	const { result, error } = await ask(token, paymentId, apiBaseUrl);
	if (error) throw error;
	return result;
};

/** Does so about the stored top-up until there is a last word; `null` where none is stored. */
export const reconcileTopupOnReturn = async (options: {
	token: string;
	apiBaseUrl?: string;
	signal?: AbortSignal;
	onStep?: (step: TopupReconcileStep) => void;
}): Promise<TopupReconcileStep | null> => {
	const { token, apiBaseUrl, signal, onStep } = options;
	const step = (taken: TopupReconcileStep) => {
		onStep?.(taken);
		return taken;
	};
	const flow = readFlow();
	if (!flow) return null;
	for (let wait = 0, backoff = 0, lost = false; ;) {
		const ready = !wait && document.visibilityState !== 'hidden';
		if (!ready && !signal?.aborted) await pause(wait, lost, signal);
		if (signal?.aborted) return step({ state: 'aborted' });
		if (Date.now() >= flow.endsAt) return step({ state: 'expired' });
		step({ state: 'asking' });
		const { result, error, retryAfter } =
			(await Promise.race([
				ask(token, flow.id, apiBaseUrl, signal),
				pause(ANSWER_MS, false, signal)
			])) ?? failed(0, 'No answer');
		if (result?.credited) return step({ state: 'credited', result });
		if (result?.provider_status === 'canceled') return step({ state: 'canceled', result });
		if (error && error.status >= 400 && error.status < 500 && error.status !== 429) {
			return step({ state: 'refused', error });
		}
		backoff = result && retryAfter ? 0 : Math.min(60, 2 * backoff || 3);
		lost = error?.status === 0;
		wait = Math.min(1000 * Math.max(backoff, retryAfter ?? 0), flow.endsAt - Date.now());
		if (!signal?.aborted) step({ state: 'waiting', result, error, retryInMs: wait });
	}
};
