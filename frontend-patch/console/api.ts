/** The endpoints: what they answer, checked, and how they fail. */

export const WAYS = ['webhook', 'return', 'visit', 'sweep', 'release'] as const;
export type Way = (typeof WAYS)[number];

export interface Sum {
	count: number;
	kopeks: number;
}

export type Day = { date: string } & Record<Way, Sum>;

export interface Pass {
	began_at: number;
	seconds: number;
	listed: number;
	credited: number;
	canceled: number;
	held: number;
	failed: number;
	others: number;
	unreadable: number;
}

export interface Report {
	days: Day[];
	open: { older_than: number; count: number }[];
	delay_seconds: { median: number | null; p95: number | null };
	last_pass: Pass | null;
	mode: 'credit' | 'observe';
	version: string;
	plugins: string[];
}

export interface Progress {
	payments: number;
	entries: number;
}

export interface Finding {
	class: string;
	payment_id: string;
	user_id: string | null;
	wallet_id: string | null;
	amount_kopeks: number;
	currency: string;
	reason: string | null;
	captured_at: string | null;
	releasable: boolean;
}

export interface Summary {
	since: string;
	until: string;
	checked: { payments: number; entries: number; others: number; unreadable: number };
	settled: number;
	totals: Record<string, Sum>;
}

export type AuditLine = { progress: Progress } | { finding: Finding } | { summary: Summary };

export interface ReleaseRequest {
	payment_id: string;
	reason: string;
	note: string;
	confirm: boolean;
}

export interface ReleaseAnswer {
	payment_id: string;
	provider_status: string;
	payment_status: string | null;
	credited: boolean;
	amount_kopeks: number;
	user_id?: string | null;
	wallet_id?: string | null;
	currency?: string;
}

/**
 * `refused`: the server said no, in its own words (`detail`). `unreachable`: no answer came. `unreadable`: the
 * answer is not one that this page knows.
 */
export class ApiError extends Error {
	constructor(
		readonly kind: 'refused' | 'unreachable' | 'unreadable',
		readonly status = 0,
		readonly detail: string | null = null,
		readonly reason: string | null = null,
		readonly retryAfter: number | null = null
	) {
		super(detail ?? kind);
	}

	/** Whether the server has not taken the caller for an administrator. */
	get isSignedOut(): boolean {
		return this.status === 401 || this.status === 403;
	}

	/** Whether the server may have done what it was told all the same. */
	get isOutcomeUnknown(): boolean {
		return this.kind !== 'refused' || this.status >= 500;
	}
}

const ANSWER_MS = 30_000; // the server answers within 12 s

export class Api {
	/** `base` is where the endpoints are; `token` is read for each request, since the app may renew it. */
	constructor(
		private readonly base: string,
		private readonly token: () => string | null
	) {}

	async report(days: number, signal: AbortSignal): Promise<Report> {
		const response = await this.open(`/report?days=${days}`, {}, signal);
		return checked(await jsonOf(response), isReport);
	}

	async release(request: ReleaseRequest): Promise<ReleaseAnswer> {
		const response = await this.open('/release', {
			method: 'POST',
			headers: { 'Content-Type': 'application/json' },
			body: JSON.stringify(request)
		});
		return checked(await jsonOf(response), isReleaseAnswer);
	}

	/** The lines of an audit as they come, several at a time. Without a summary at the end it throws. */
	async *audit(since: string, until: string, signal: AbortSignal): AsyncGenerator<AuditLine[]> {
		const query = new URLSearchParams({ since, until }).toString();
		const headers = { Accept: 'application/x-ndjson' };
		const { body } = await this.open(`/audit?${query}`, { headers }, signal);
		let isComplete = false;
		for await (const texts of readLines(body)) {
			const lines: AuditLine[] = [];
			try {
				for (const text of texts) lines.push(auditLineOf(text));
			} finally {
				yield lines; // also what came ahead of a line that fails
			}
			isComplete ||= lines.some((line) => 'summary' in line);
		}
		if (!isComplete) throw new ApiError('unreachable');
	}

	private async open(
		path: string,
		init: Omit<RequestInit, 'headers'> & { headers?: Record<string, string> },
		signal?: AbortSignal
	): Promise<Response> {
		const over = new AbortController();
		const abort = () => {
			over.abort();
		};
		if (signal?.aborted) abort();
		signal?.addEventListener('abort', abort);
		const timer = setTimeout(abort, ANSWER_MS);
		const headers = { ...init.headers, Authorization: `Bearer ${this.token() ?? ''}` };
		try {
			const response = await fetch(this.base + path, {
				...init,
				headers,
				cache: 'no-store',
				signal: over.signal
			});
			if (!response.ok) throw await errorOf(response);
			return response;
		} catch (error) {
			throw error instanceof ApiError ? error : new ApiError('unreachable');
		} finally {
			clearTimeout(timer);
		}
	}
}

/** The lines of a stream, all that a chunk completes at a time; what stands behind the last newline is one too. */
export async function* readLines(
	body: ReadableStream<Uint8Array> | null
): AsyncGenerator<string[]> {
	if (!body) return;
	const reader = body.getReader();
	const decoder = new TextDecoder();
	let rest = '';
	try {
		for (;;) {
			const { done, value } = await reader.read().catch(() => {
				throw new ApiError('unreachable');
			});
			rest += done ? decoder.decode() : decoder.decode(value, { stream: true });
			const lines = rest.split('\n');
			rest = done ? '' : (lines.pop() ?? '');
			const texts = lines.filter((line) => line.trim());
			if (texts.length) yield texts;
			if (done) return;
		}
	} finally {
		await reader.cancel().catch(() => undefined); // whoever stops reading ends the server's work
	}
}

function auditLineOf(text: string): AuditLine {
	const line = parsed(text);
	if (isObject(line)) {
		const { progress, finding, error } = line;
		if (isObject(error)) throw new ApiError('refused', 503, textOr(error.detail, null));
		if (isCounts<Progress>(progress, 'payments', 'entries')) return { progress };
		if (isFinding(finding)) return { finding };
		if (isSummary(line)) return { summary: line };
	}
	throw new ApiError('unreadable');
}

async function errorOf(response: Response): Promise<ApiError> {
	const body = (await response.json().catch(() => null)) as unknown;
	const { detail, reason } = isObject(body) ? body : {};
	const retryAfter = Math.max(0, Number(response.headers.get('Retry-After'))) || null;
	return new ApiError(
		'refused',
		response.status,
		textOr(detail, null),
		textOr(reason, null),
		retryAfter
	);
}

async function jsonOf(response: Response): Promise<unknown> {
	return parsed(
		await response.text().catch(() => {
			throw new ApiError('unreachable');
		})
	);
}

function parsed(text: string): unknown {
	try {
		return JSON.parse(text) as unknown;
	} catch {
		throw new ApiError('unreadable');
	}
}

function checked<T>(body: unknown, isIt: (body: unknown) => body is T): T {
	if (isIt(body)) return body;
	throw new ApiError('unreadable');
}

// --- What a well-formed answer is. A number that a float does not hold exactly is none. ---

type Fields = Record<string, unknown>;

const isObject = (value: unknown): value is Fields => typeof value === 'object' && value !== null;
const isText = (value: unknown): value is string => typeof value === 'string';
const isTextOrNull = (value: unknown): value is string | null => value === null || isText(value);
const isNumberOrNull = (value: unknown): boolean => value === null || typeof value === 'number';
const textOr = <T>(value: unknown, otherwise: T): string | T => (isText(value) ? value : otherwise);

function isCounts<T>(value: unknown, ...names: (keyof T & string)[]): value is T {
	return isObject(value) && names.every((name) => Number.isSafeInteger(value[name]));
}

const isSum = (value: unknown): value is Sum => isCounts<Sum>(value, 'count', 'kopeks');

const isDay = (value: unknown): value is Day =>
	isObject(value) && isText(value.date) && WAYS.every((way) => isSum(value[way]));

const isPass = (value: unknown): value is Pass =>
	isCounts<Pass>(
		value,
		'listed',
		'credited',
		'canceled',
		'held',
		'failed',
		'others',
		'unreadable'
	) &&
	typeof value.began_at === 'number' &&
	typeof value.seconds === 'number';

const isReport = (value: unknown): value is Report =>
	isObject(value) &&
	Array.isArray(value.days) &&
	value.days.every(isDay) &&
	Array.isArray(value.open) &&
	value.open.every((open) => isCounts<Report['open'][0]>(open, 'older_than', 'count')) &&
	isObject(value.delay_seconds) &&
	isNumberOrNull(value.delay_seconds.median) &&
	isNumberOrNull(value.delay_seconds.p95) &&
	(value.last_pass === null || isPass(value.last_pass)) &&
	(value.mode === 'credit' || value.mode === 'observe') &&
	isText(value.version) &&
	Array.isArray(value.plugins) &&
	value.plugins.every(isText);

const isFinding = (value: unknown): value is Finding =>
	isCounts<Finding>(value, 'amount_kopeks') &&
	isText(value.class) &&
	isText(value.payment_id) &&
	isTextOrNull(value.user_id) &&
	isTextOrNull(value.wallet_id) &&
	isText(value.currency) &&
	/^[A-Z]{3}$/.test(value.currency) &&
	isTextOrNull(value.reason) &&
	isTextOrNull(value.captured_at) &&
	typeof value.releasable === 'boolean';

const isSummary = (value: unknown): value is Summary =>
	isCounts<Summary>(value, 'settled') &&
	isText(value.since) &&
	isText(value.until) &&
	isCounts<Summary['checked']>(value.checked, 'payments', 'entries', 'others', 'unreadable') &&
	isObject(value.totals) &&
	Object.values(value.totals).every(isSum);

const isReleaseAnswer = (value: unknown): value is ReleaseAnswer =>
	isCounts<ReleaseAnswer>(value, 'amount_kopeks') &&
	isText(value.payment_id) &&
	isText(value.provider_status) &&
	isTextOrNull(value.payment_status) &&
	typeof value.credited === 'boolean';
