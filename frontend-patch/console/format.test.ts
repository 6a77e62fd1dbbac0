import { describe, expect, it, test } from 'vitest';
import { ticksUpTo } from './chart';
import { addDays, daysBetween, formatsOf, todayInMoscow } from './format';

const en = formatsOf('en');
const ru = formatsOf('ru');
/** With plain spaces, so that the texts can be read here. */
const plain = (text: string): string => text.replace(/\s/g, ' ');

describe('an amount', () => {
	test.each([
		[0, '0,00 ₽'],
		[5, '0,05 ₽'],
		[99, '0,99 ₽'],
		[100_000, '1 000,00 ₽'],
		[123_456_789, '1 234 567,89 ₽'],
		[-5, '-0,05 ₽'],
		[-100_050, '-1 000,50 ₽']
	])('of %d kopeks', (kopeks, text) => {
		expect(plain(ru.money(kopeks))).toBe(text);
	});

	// As quotients, these would end in ,90 and ,88.
	it.each([
		[9_007_199_254_740_991, '90 071 992 547 409,91 ₽'],
		[9_007_199_254_740_987, '90 071 992 547 409,87 ₽']
	])('keeps each kopek of %d', (kopeks, text) => {
		expect(plain(ru.money(kopeks))).toBe(text);
	});

	it('is in its own currency and language', () => {
		expect(en.money(100_050)).toBe('₽1,000.50');
		expect(en.money(100_050, 'USD')).toBe('$1,000.50');
	});

	it.each([0.5, NaN, Infinity, 1e21])('is never made up from %d', (kopeks) => {
		expect(() => ru.money(kopeks)).toThrow(RangeError);
	});
});

describe('a duration', () => {
	test.each([
		[0, '0 sec'],
		[0.04, '0 sec'],
		[1.2, '1.2 sec'],
		[12, '12 sec'],
		[59.9, '60 sec'],
		[95, '1 min 35 sec'],
		[3600, '1 hr'],
		[5400, '1 hr 30 min'],
		[691_200, '8 days']
	])('of %d s', (seconds, text) => {
		expect(en.duration(seconds)).toBe(text);
	});
});

describe('a day', () => {
	it('is that of Moscow', () => {
		expect(todayInMoscow(Date.parse('2026-11-23T20:59:59Z'))).toBe('2026-11-23');
		expect(todayInMoscow(Date.parse('2026-11-23T21:00:00Z'))).toBe('2026-11-24');
	});

	it('is counted across months, years and changes of the clock', () => {
		expect(addDays('2027-01-01', -6)).toBe('2026-12-26');
		expect(addDays('2026-03-28', 2)).toBe('2026-03-30');
		expect(daysBetween('2026-03-28', '2026-06-28')).toBe(92);
	});

	it('of a capture is shown in Moscow, and as it came where it cannot be read', () => {
		expect(en.inMoscow('2026-11-23T21:14:05.120Z')).toBe('Nov 24, 2026, 00:14:05');
		expect(en.inMoscow('soon')).toBe('soon');
	});
});

test.each([
	[0, [0, 1]],
	[1, [0, 1]],
	[3, [0, 1, 2, 3]],
	[7, [0, 2, 4, 6, 8]],
	[21, [0, 10, 20, 30]],
	[1000, [0, 500, 1000]]
])('the axis up to %d has round whole numbers', (most, ticks) => {
	expect(ticksUpTo(most)).toEqual(ticks);
});
