/** How numbers, amounts and times are written in one language. */

const DATE: Intl.DateTimeFormatOptions = { day: 'numeric', month: 'short', year: 'numeric' };
const TIME: Intl.DateTimeFormatOptions = {
	hour: '2-digit',
	minute: '2-digit',
	second: '2-digit',
	hourCycle: 'h23'
};
const MOSCOW = 'Europe/Moscow'; // the provider's days
const UNITS = [
	['day', 86_400],
	['hour', 3600],
	['minute', 60],
	['second', 1]
] as const;

export interface Formats {
	count: (count: number) => string;
	money: (kopeks: number, currency?: string) => string;
	share: (part: number, whole: number) => string;
	/** Of seconds: the two largest units. */
	duration: (seconds: number) => string;
	/** Of a day as `YYYY-MM-DD`. */
	date: (day: string) => string;
	shortDate: (day: string) => string;
	/** Of milliseconds, where the reader is. */
	moment: (milliseconds: number) => string;
	/** Of an ISO 8601 text, in Moscow; what cannot be read is shown as it is. */
	inMoscow: (text: string) => string;
}

export function formatsOf(language: string): Formats {
	const count = new Intl.NumberFormat(language);
	const percent = new Intl.NumberFormat(language, { style: 'percent', maximumFractionDigits: 1 });
	const date = new Intl.DateTimeFormat(language, { ...DATE, timeZone: 'UTC' });
	const shortDate = new Intl.DateTimeFormat(language, {
		day: 'numeric',
		month: 'short',
		timeZone: 'UTC'
	});
	const moment = new Intl.DateTimeFormat(language, { ...DATE, ...TIME });
	const inMoscow = new Intl.DateTimeFormat(language, { ...DATE, ...TIME, timeZone: MOSCOW });
	return {
		count: (value) => count.format(value),
		money: (kopeks, currency = 'RUB') => money(language, kopeks, currency),
		share: (part, whole) => percent.format(part / whole),
		duration: (seconds) => duration(language, seconds),
		date: (day) => date.format(startOf(day)),
		shortDate: (day) => shortDate.format(startOf(day)),
		moment: (milliseconds) => moment.format(milliseconds),
		inMoscow: (text) => {
			const milliseconds = Date.parse(text);
			return Number.isNaN(milliseconds) ? text : inMoscow.format(milliseconds);
		}
	};
}

function money(language: string, kopeks: number, currency: string): string {
	// The decimal text, not a quotient: a float does not hold every kopek of a large amount.
	const [, sign, digits] = /^(-?)(\d+)$/.exec(String(kopeks)) ?? [];
	if (sign === undefined || digits === undefined) throw new RangeError(`${kopeks} kopeks`);
	const padded = digits.padStart(3, '0');
	const decimal = `${sign}${padded.slice(0, -2)}.${padded.slice(-2)}`;
	return new Intl.NumberFormat(language, {
		style: 'currency',
		currency,
		currencyDisplay: 'narrowSymbol',
		minimumFractionDigits: 2,
		maximumFractionDigits: 2
	}).format(decimal as unknown as number); // Intl takes decimal texts as they are
}

function duration(language: string, seconds: number): string {
	const largest = UNITS.findIndex(([, size]) => seconds >= size);
	if (largest < 0) return part(language, seconds, 'second', 1);
	const texts: string[] = [];
	let rest = seconds < 60 ? seconds : Math.round(seconds);
	for (const [unit, size] of UNITS.slice(largest, largest + 2)) {
		const whole = unit === 'second' ? rest : Math.floor(rest / size);
		if (whole > 0) texts.push(part(language, whole, unit, seconds < 10 ? 1 : 0));
		rest -= whole * size;
	}
	return texts.join(' ');
}

function part(language: string, value: number, unit: string, digits: number): string {
	return new Intl.NumberFormat(language, {
		style: 'unit',
		unit,
		unitDisplay: 'short',
		maximumFractionDigits: digits
	}).format(value);
}

const startOf = (day: string): number => Date.parse(`${day}T00:00:00Z`);

/** Today in Moscow, as `YYYY-MM-DD`. */
export function todayInMoscow(now = Date.now()): string {
	return new Intl.DateTimeFormat('en-CA', {
		timeZone: MOSCOW,
		year: 'numeric',
		month: '2-digit',
		day: '2-digit'
	}).format(now);
}

export function addDays(day: string, days: number): string {
	return new Date(startOf(day) + days * 86_400_000).toISOString().slice(0, 10);
}

/** Whole days from `since` to `until`. */
export function daysBetween(since: string, until: string): number {
	return (startOf(until) - startOf(since)) / 86_400_000;
}
