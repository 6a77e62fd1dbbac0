// What the page says, in the browser's language.
const TEXTS = {
	en: {
		home: 'Chat',
		home_text: 'In a real host, this is where the conversation takes place.',
		to_balance: 'Balance and top-ups',
		sign_in: 'Sign in',
		sign_out: 'Sign out',
		email: 'Email',
		password: 'Password',
		signing_in: 'Signing in…',
		balance: 'Balance',
		available: 'Available for replies, images and speech',
		loading: 'Loading the balance…',
		load_failed: 'The balance could not be loaded.',
		retry: 'Try again',
		top_up: 'Top up',
		top_up_text: 'You pay on the YooKassa page and come back here.',
		custom_amount: 'Another amount',
		proceed: 'Proceed to payment',
		processing: 'Processing…',
		topup_failed: 'The payment could not be started.',
		trust: 'Payment is handled by YooKassa: card details never reach this site.',
		checking: 'Checking the payment',
		checking_text: 'This takes a few seconds. The balance updates by itself.',
		success: 'The balance is topped up',
		success_text: 'The payment was received.',
		pending: 'The payment is not confirmed yet',
		pending_text:
			'If you have paid, the money will arrive by itself. If you cancelled, nothing was charged.',
		refresh: 'Refresh the balance',
		refresh_failed: 'No connection: the balance may be out of date.',
		dismiss: 'Close',
		history: 'Recent activity',
		history_empty: 'Nothing here yet.',
		entry_topup: 'Top-up',
		entry_other: 'Adjustment',
		visits: 'Counting visits',
		visits_text: 'May we count visits? Everything works without it too.',
		visits_no: 'No, thanks',
		visits_yes: 'Allow',
		terms: 'Our terms have changed',
		terms_text: 'I have read the terms and accept them',
		terms_accept: 'Continue'
	},
	ru: {
		home: 'Чат',
		home_text: 'В настоящем сервисе здесь идёт разговор.',
		to_balance: 'Баланс и пополнение',
		sign_in: 'Войти',
		sign_out: 'Выйти',
		email: 'Почта',
		password: 'Пароль',
		signing_in: 'Входим…',
		balance: 'Баланс',
		available: 'Доступно для ответов, изображений и речи',
		loading: 'Загружаем баланс…',
		load_failed: 'Не удалось загрузить баланс.',
		retry: 'Повторить',
		top_up: 'Пополнить',
		top_up_text: 'Вы оплатите на странице ЮKassa и вернётесь сюда.',
		custom_amount: 'Другая сумма',
		proceed: 'Перейти к оплате',
		processing: 'Обрабатываем…',
		topup_failed: 'Не удалось начать оплату.',
		trust: 'Оплату проводит ЮKassa: данные карты не попадают на этот сайт.',
		checking: 'Проверяем платёж',
		checking_text: 'Это займёт несколько секунд. Баланс обновится сам.',
		success: 'Баланс пополнен',
		success_text: 'Платёж получен.',
		pending: 'Платёж пока не подтверждён',
		pending_text: 'Если вы оплатили, деньги придут сами. Если отменили, ничего не списано.',
		refresh: 'Обновить баланс',
		refresh_failed: 'Нет связи: баланс мог измениться.',
		dismiss: 'Закрыть',
		history: 'Последние операции',
		history_empty: 'Пока пусто.',
		entry_topup: 'Пополнение',
		entry_other: 'Корректировка',
		visits: 'Подсчёт посещений',
		visits_text: 'Можно считать посещения? Всё работает и без этого.',
		visits_no: 'Нет, спасибо',
		visits_yes: 'Можно',
		terms: 'Наши условия изменились',
		terms_text: 'Я прочитал условия и согласен с ними',
		terms_accept: 'Дальше'
	}
};

export const language = navigator.language.toLowerCase().startsWith('ru') ? 'ru' : 'en';
export const text = TEXTS[language];

const money = (kopeks, currency, digits, extra = {}) =>
	new Intl.NumberFormat(language, {
		style: 'currency',
		currency,
		currencyDisplay: 'narrowSymbol',
		minimumFractionDigits: digits,
		maximumFractionDigits: digits,
		...extra
	}).format(kopeks / 100);

export const amount = (kopeks, currency) => money(kopeks, currency, 2);
export const roundAmount = (kopeks, currency) => money(kopeks, currency, kopeks % 100 ? 2 : 0);
export const change = (kopeks, currency) =>
	money(kopeks, currency, 2, { signDisplay: 'exceptZero' });
export const moment = (epochSeconds) =>
	new Intl.DateTimeFormat(language, {
		day: 'numeric',
		month: 'long',
		hour: '2-digit',
		minute: '2-digit'
	}).format(epochSeconds * 1000);
