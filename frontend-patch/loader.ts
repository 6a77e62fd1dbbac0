/** For a front end built before this existed: on the balance page only, behind the host's loader.js. */
import { FLOW_KEY, reconcileTopupOnReturn } from './reconcile-topup';

const BALANCE_PAGE = /^(.*)\/billing\/balance\/?$/;
const PAGE_POLLS_MS = 23 * 1000; // the page asks for the balance six times, every three seconds
const PAGE_NOTICES_MS = 5 * 1000;
const RELOADED_KEY = 'billing_topup_reconcile_reloaded';

let visit: AbortController | null = null;

const balancePage = (): RegExpExecArray | null => BALANCE_PAGE.exec(location.pathname);

/** The page has given up polling and still shows the old balance: load it anew, once for each top-up. */
const reloadOnce = (flow: string, signal: AbortSignal): void => {
	if (signal.aborted || !balancePage() || localStorage.getItem(FLOW_KEY) !== flow) return;
	sessionStorage.setItem(RELOADED_KEY, flow);
	location.reload();
};

const reconcile = async (base: string, visit: AbortController): Promise<void> => {
	const { signal } = visit;
	const token = localStorage.getItem('token');
	const flow = localStorage.getItem(FLOW_KEY);
	if (!token || !flow || sessionStorage.getItem(RELOADED_KEY) === flow) return;
	const began = Date.now();
	const last = await reconcileTopupOnReturn({
		token,
		signal,
		// The origin keeps the token at home: a path may begin with two slashes.
		apiBaseUrl: `${location.origin}${base}/api/v1`,
		onStep: () => {
			if (!balancePage()) visit.abort();
		}
	});
	if (last?.state !== 'credited') return;
	const wait = Math.max(PAGE_NOTICES_MS, began + PAGE_POLLS_MS - Date.now());
	setTimeout(reloadOnce, wait, flow, signal);
};

/** On each arrival at the balance page, and never twice for one. */
const look = (): void => {
	const base = balancePage()?.[1];
	if (base === undefined) {
		visit?.abort();
		visit = null;
	} else if (!visit) {
		visit = new AbortController();
		// Storage may be forbidden: then there is nothing to do.
		reconcile(base, visit).catch(() => undefined);
	}
};

look();
// Moves inside the page, such as back from signing in, where the browser tells of them.
(window as { navigation?: EventTarget }).navigation?.addEventListener('currententrychange', look);
// Back from the provider with the browser's own button: the page is shown again as it was left.
window.addEventListener('pageshow', ({ persisted }) => {
	if (!persisted) return;
	visit?.abort();
	visit = null;
	look();
});
