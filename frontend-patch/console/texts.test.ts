import { afterEach, describe, expect, it, vi } from 'vitest';
import { ApiError } from './api';
import en from './en.json';
import ru from './ru.json';
import { chooseLanguage, preferredLanguage, textsOf, type Language } from './texts';

const names = (text: string): string[] => [...text.matchAll(/\{(\w+)\}/g)].map(String).sort();

afterEach(() => {
	localStorage.clear();
	vi.unstubAllGlobals();
});

describe('the two languages', () => {
	it('have the same texts in the same order', () => {
		expect(Object.keys(ru)).toEqual(Object.keys(en));
	});

	it.each(Object.keys(en) as (keyof typeof en)[])('name the same values in %s', (key) => {
		expect(names(ru[key])).toEqual(names(en[key]));
		expect(en[key]).toMatch(/[a-z]/i);
		expect(ru[key].replace(/\{\w+\}/g, '') || 'я').toMatch(/[а-я]|^ \(\)$/i);
	});
});

describe('the language', () => {
	it.each<[string, { locale?: string; chosen?: Language }, string, Language]>([
		['the browser’s', {}, 'ru-RU', 'ru'],
		['the browser’s, if there is no other', {}, 'de', 'en'],
		['the app’s', { locale: 'ru-RU' }, 'en-US', 'ru'],
		['the app’s, not the browser’s', { locale: 'en-US' }, 'ru', 'en'],
		['the one chosen here', { locale: 'ru-RU', chosen: 'en' }, 'ru', 'en']
	])('is %s', (_, stored, browser, language) => {
		vi.stubGlobal('navigator', { language: browser });
		if (stored.locale) localStorage.setItem('locale', stored.locale);
		if (stored.chosen) chooseLanguage(stored.chosen);
		expect(preferredLanguage()).toBe(language);
		expect(localStorage.getItem('locale')).toBe(stored.locale ?? null); // that is the app's
	});

	it('is the browser’s where storage is forbidden', () => {
		const forbid = () => {
			throw new DOMException('', 'SecurityError');
		};
		vi.stubGlobal('localStorage', { getItem: forbid, setItem: forbid, clear: vi.fn() });
		vi.stubGlobal('navigator', { language: 'ru' });
		chooseLanguage('en');
		expect(preferredLanguage()).toBe('ru');
	});
});

describe('a problem', () => {
	const detail = 'Billing wallet is disabled';

	it('is told in the server’s words, and in Russian where they are known', () => {
		const error = new ApiError('refused', 404, detail);
		expect(textsOf('en').problem(error)).toBe(detail);
		expect(textsOf('ru').problem(error)).toBe('Кошелёк отключён');
		expect(textsOf('ru').problem(new ApiError('refused', 409, 'Other words'))).toBe('Other words');
	});

	it('has its status where there are no words, and when to try again', () => {
		const error = new ApiError('refused', 503, null, null, 7);
		expect(textsOf('en').problem(error)).toBe(
			'The server answered with status 503. Try again in 7 sec.'
		);
	});
});

it('shows a code of the server’s that it does not know as it is', () => {
	expect(textsOf('en').named('reason', 'refunded')).toBe('Refunded');
	expect(textsOf('en').named('reason', 'new_code')).toBe('new_code');
	expect(textsOf('en').named('reason', 'new_code', 'look')).toBe('');
	expect(textsOf('en').named('class', 'toString')).toBe('toString');
});
