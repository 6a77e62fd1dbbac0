import { beforeEach, describe, expect, it, test, vi } from 'vitest';
import { Api, ApiError, readLines, type AuditLine } from './api';
import { FINDING, PREVIEW, REPORT, SUMMARY } from './samples';

const BASE = 'https://chat.example/api/v1/billing/topup/reconcile';
const PROGRESS = { payments: 100, entries: 97 };

const fetched = vi.fn<typeof fetch>();
let token: string | null;
const api = new Api(BASE, () => token);
const { signal } = new AbortController();

beforeEach(() => {
	token = 'the token';
	vi.stubGlobal('fetch', fetched);
});

const answer = (body: unknown, status = 200, headers = {}): void => {
	fetched.mockResolvedValue(new Response(JSON.stringify(body), { status, headers }));
};

/** A stream of these chunks, that then ends or, if told so, breaks. */
function streamOf(chunks: (string | Uint8Array)[], breaks = false): ReadableStream<Uint8Array> {
	const bytes = chunks.map((chunk) =>
		typeof chunk === 'string' ? new TextEncoder().encode(chunk) : chunk
	);
	return new ReadableStream<Uint8Array>({
		pull(controller) {
			const chunk = bytes.shift();
			if (chunk) controller.enqueue(chunk);
			else if (breaks) controller.error(new TypeError('lost'));
			else controller.close();
		}
	});
}

async function all<T>(lists: AsyncIterable<T[]>): Promise<T[]> {
	const found: T[] = [];
	for await (const list of lists) found.push(...list);
	return found;
}

describe('the reader of lines', () => {
	const TEXT = '{"a":1}\n{"b":"€"}\n\n{"c":3}';
	const LINES = ['{"a":1}', '{"b":"€"}', '{"c":3}'];

	test.each([1, 2, 3, 5, 100])('joins lines that come in chunks of %d bytes', async (size) => {
		const bytes = new TextEncoder().encode(TEXT);
		const chunks = Array.from({ length: Math.ceil(bytes.length / size) }, (_, index) =>
			bytes.slice(index * size, (index + 1) * size)
		);
		expect(await all(readLines(streamOf(chunks)))).toEqual(LINES);
	});

	it('hands on at once what a chunk completes', async () => {
		const lists: string[][] = [];
		for await (const list of readLines(streamOf(['1\n2\n3', '\n']))) lists.push(list);
		expect(lists).toEqual([['1', '2'], ['3']]);
	});

	it('ends the stream when nobody reads on', async () => {
		const cancel = vi.fn();
		const body = new ReadableStream<Uint8Array>({
			pull(controller) {
				controller.enqueue(new TextEncoder().encode('1\n'));
			},
			cancel
		});
		for await (const list of readLines(body)) {
			expect(list).toEqual(['1']);
			break;
		}
		expect(cancel).toHaveBeenCalledOnce();
	});

	it('reads nothing where there is no body', async () => {
		expect(await all(readLines(null))).toEqual([]);
	});
});

describe('an audit', () => {
	const lines = (...bodies: unknown[]): string[] =>
		bodies.map((body) => JSON.stringify(body) + '\n');
	const answerLines = (chunks: string[], breaks = false): void => {
		fetched.mockResolvedValue(new Response(streamOf(chunks, breaks)));
	};
	const audit = (): Promise<AuditLine[]> => all(api.audit('2026-11-18', '2026-11-25', signal));

	it('yields progress, findings and the summary', async () => {
		answerLines(lines({ progress: PROGRESS }, { finding: FINDING }, SUMMARY));
		expect(await audit()).toEqual([
			{ progress: PROGRESS },
			{ finding: FINDING },
			{ summary: SUMMARY }
		]);
		const [url, init] = fetched.mock.calls[0] ?? [];
		expect(url).toBe(`${BASE}/audit?since=2026-11-18&until=2026-11-25`);
		expect(init?.headers).toEqual({
			Accept: 'application/x-ndjson',
			Authorization: 'Bearer the token'
		});
	});

	it.each([
		['breaks off', lines({ finding: FINDING }), true, 'unreachable'],
		['ends without a summary', lines({ finding: FINDING }), false, 'unreachable'],
		[
			'sends something else',
			lines({ finding: { ...FINDING, amount_kopeks: '1' } }),
			false,
			'unreadable'
		],
		['sends no JSON', ['<html>\n'], false, 'unreadable']
	])('that %s has failed', async (_, chunks, breaks, kind) => {
		answerLines(chunks, breaks);
		await expect(audit()).rejects.toMatchObject({ kind });
	});

	it('fails in the words of its last line, after what was found before', async () => {
		const detail = 'Payment system is not configured';
		answerLines([lines({ finding: FINDING }, { error: { detail } }).join('')]);
		const found: AuditLine[] = [];
		const reading = (async () => {
			for await (const list of api.audit('2026-11-18', '2026-11-25', signal)) found.push(...list);
		})();
		await expect(reading).rejects.toMatchObject({ kind: 'refused', detail });
		expect(found).toEqual([{ finding: FINDING }]);
	});

	it('ends its request when it is aborted', async () => {
		const stop = new AbortController();
		let requested: AbortSignal | null | undefined;
		fetched.mockImplementation((_, init) => {
			requested = init?.signal;
			const body = new ReadableStream<Uint8Array>({
				start(controller) {
					controller.enqueue(new TextEncoder().encode(lines({ progress: PROGRESS }).join('')));
					requested?.addEventListener('abort', () => {
						controller.error(new DOMException('', 'AbortError'));
					});
				}
			});
			return Promise.resolve(new Response(body));
		});
		const found: AuditLine[] = [];
		const reading = (async () => {
			for await (const list of api.audit('2026-11-18', '2026-11-25', stop.signal)) {
				found.push(...list);
				stop.abort();
			}
		})();
		await expect(reading).rejects.toBeInstanceOf(ApiError);
		expect(found).toEqual([{ progress: PROGRESS }]);
		expect(requested?.aborted).toBe(true);
	});
});

describe('an answer', () => {
	it('is taken where it is well-formed', async () => {
		answer(REPORT);
		expect(await api.report(30, signal)).toEqual(REPORT);
		answer(PREVIEW);
		const request = { payment_id: 'p-1', reason: 'refunded', note: 'n', confirm: false };
		expect(await api.release(request)).toEqual(PREVIEW);
		const [url, init] = fetched.mock.calls[1] ?? [];
		expect(url).toBe(`${BASE}/release`);
		expect(JSON.parse(init?.body as string)).toEqual(request);
	});

	it.each([
		null,
		[],
		{},
		{ ...REPORT, mode: 'other' },
		{ ...REPORT, days: [{ date: '2026-11-24' }] },
		{ ...REPORT, days: [{ ...REPORT.days[0], visit: { count: 1, kopeks: 0.5 } }] },
		{ ...REPORT, days: [{ ...REPORT.days[0], visit: { count: 1, kopeks: 2 ** 53 } }] },
		{ ...REPORT, last_pass: {} },
		{ ...REPORT, delay_seconds: { median: '12', p95: null } }
	])('is not read into numbers where it is %j', async (body) => {
		answer(body);
		await expect(api.report(30, signal)).rejects.toMatchObject({ kind: 'unreadable' });
	});

	it('that is no JSON is not readable', async () => {
		fetched.mockResolvedValue(new Response('<html>'));
		await expect(api.report(30, signal)).rejects.toMatchObject({ kind: 'unreadable' });
	});

	it('that is refused has the server’s words, code and pause', async () => {
		answer({ detail: 'Already credited', reason: 'already_credited' }, 409, { 'Retry-After': '7' });
		await expect(api.report(30, signal)).rejects.toMatchObject({
			kind: 'refused',
			status: 409,
			detail: 'Already credited',
			reason: 'already_credited',
			retryAfter: 7,
			isSignedOut: false,
			isOutcomeUnknown: false
		});
	});

	it.each([401, 403])('%d means that the caller is no administrator', async (status) => {
		answer({ detail: 'No' }, status);
		await expect(api.report(30, signal)).rejects.toMatchObject({ isSignedOut: true });
	});

	it.each([
		['no answer', () => fetched.mockRejectedValue(new TypeError('lost'))],
		['an unreadable one', () => fetched.mockResolvedValue(new Response('?'))],
		['an error of the server', () => fetched.mockResolvedValue(new Response('', { status: 502 }))]
	])('after %s nobody knows what was done', async (_, arrange) => {
		arrange();
		await expect(api.report(30, signal)).rejects.toMatchObject({ isOutcomeUnknown: true });
	});

	it('is not waited for without end', async () => {
		vi.useFakeTimers();
		fetched.mockImplementation(
			(_, init) =>
				new Promise((_resolve, reject) => {
					init?.signal?.addEventListener('abort', () => {
						reject(new DOMException('', 'AbortError'));
					});
				})
		);
		const asked = expect(api.report(30, signal)).rejects.toMatchObject({ kind: 'unreachable' });
		await vi.advanceTimersByTimeAsync(30_000);
		await asked;
		vi.useRealTimers();
	});

	it('is asked for with the token of the moment', async () => {
		answer(REPORT);
		await api.report(30, signal);
		token = 'a newer one';
		answer(REPORT);
		await api.report(7, signal);
		expect(fetched.mock.calls.map(([, init]) => init?.headers)).toEqual([
			{ Authorization: 'Bearer the token' },
			{ Authorization: 'Bearer a newer one' }
		]);
	});
});
