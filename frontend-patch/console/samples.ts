/** Well-formed answers of the server, for the tests. */
import type { Finding, ReleaseAnswer, Report, Summary } from './api';

const NOTHING = { count: 0, kopeks: 0 };

export const REPORT: Report = {
	days: [
		{
			date: '2026-11-24',
			webhook: { count: 3, kopeks: 300_000 },
			return: { count: 1, kopeks: 100_000 },
			visit: NOTHING,
			sweep: NOTHING,
			release: NOTHING
		}
	],
	open: [{ older_than: 3600, count: 2 }],
	delay_seconds: { median: 12, p95: null },
	last_pass: null,
	mode: 'credit',
	version: '0.1.0',
	plugins: ['builtin']
};

export const FINDING: Finding = {
	class: 'held',
	payment_id: 'p-1',
	user_id: 'u-1',
	wallet_id: null,
	amount_kopeks: 90_000,
	currency: 'RUB',
	reason: 'amount_mismatch',
	captured_at: '2026-11-23T21:14:05.120Z',
	releasable: true
};

export const SUMMARY: Summary = {
	since: '2026-11-18',
	until: '2026-11-25',
	checked: { payments: 2, entries: 1, others: 0, unreadable: 0 },
	settled: 0,
	totals: { held: { count: 1, kopeks: 90_000 } }
};

export const PREVIEW: ReleaseAnswer = {
	payment_id: 'p-1',
	provider_status: 'succeeded',
	payment_status: 'pending',
	credited: false,
	amount_kopeks: 90_000,
	user_id: 'u-1',
	wallet_id: 'w-1',
	currency: 'RUB'
};
