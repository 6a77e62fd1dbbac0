/** What the page says, in the reader's language. */
import { createContext } from 'preact';
import { useContext } from 'preact/hooks';
import details from '../details.ru.json';
import type { ApiError } from './api';
import en from './en.json';
import { formatsOf, type Formats } from './format';
import ru from './ru.json';

export type Key = keyof typeof en;
export type Language = 'en' | 'ru';

export const LANGUAGES: Record<Language, string> = { en: 'English', ru: 'Русский' };

const TEXTS: Record<Language, Record<Key, string>> = { en, ru };
const CHOSEN_KEY = 'billing_topup_reconcile_language';

export interface Texts extends Formats {
	language: Language;
	t: (key: Key, values?: Record<string, string | number>) => string;
	/** The text of a code that the server sent; the code itself where this page does not know it. */
	named: (kind: 'class' | 'reason', code: string, part?: 'meaning' | 'look') => string;
	/** What went wrong, and what to do. */
	problem: (error: ApiError) => string;
}

export function textsOf(language: Language): Texts {
	const texts = TEXTS[language];
	const formats = formatsOf(language);
	const t: Texts['t'] = (key, values = {}) =>
		texts[key].replace(/\{(\w+)\}/g, (_, name: string) => String(values[name]));
	return {
		...formats,
		language,
		t,
		named: (kind, code, part) => {
			const key = [kind, code, part].filter(Boolean).join('.');
			return isKey(key) ? t(key) : part ? '' : code;
		},
		problem: ({ kind, status, detail, retryAfter }) => {
			if (kind !== 'refused') return t(`error.${kind}`);
			const words = detail && language === 'ru' ? translated(detail) : detail;
			const after =
				retryAfter && t('error.retry_after', { duration: formats.duration(retryAfter) });
			return [words ?? t('error.status', { status }), after].filter(Boolean).join(' ');
		}
	};
}

const isKey = (key: string): key is Key => Object.hasOwn(en, key);

const translated = (detail: string): string =>
	Object.hasOwn(details, detail) ? details[detail as keyof typeof details] : detail;

/** The language chosen on this page, else the app's, else the browser's. */
export function preferredLanguage(): Language {
	const wanted = [stored(CHOSEN_KEY), stored('locale'), navigator.language];
	return wanted
		.find((tag) => tag)
		?.toLowerCase()
		.startsWith('ru')
		? 'ru'
		: 'en';
}

export function chooseLanguage(language: Language): void {
	try {
		localStorage.setItem(CHOSEN_KEY, language);
	} catch {
		// Storage may be forbidden: the choice then lasts as long as the page.
	}
}

/** What the browser stores; `null` also where storage is forbidden. */
export function stored(key: string): string | null {
	try {
		return localStorage.getItem(key);
	} catch {
		return null;
	}
}

export const TextsContext = createContext<Texts>(textsOf('en'));
export const useTexts = (): Texts => useContext(TextsContext);
