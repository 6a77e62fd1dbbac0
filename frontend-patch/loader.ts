/** For a front end built before this existed: on the balance page only, behind the host's loader.js. */
import { FLOW_KEY, reconcileTopupOnReturn } from './reconcile-topup';

const BALANCE_PAGE = /^(.*)\/billing\/balance\/?$/;
const PAGE_POLLS_MS = 23 * 1000; // the page asks for the balance six times, every three seconds
const PAGE_NOTICES_MS = 5 * 1000;
const IDLE_MS = 30 * 1000; // creating a top-up takes the host 15 s at most
const DIALOG = '[role$=dialog], [aria-modal=true], dialog[open]';
const RELOADED_KEY = 'billing_topup_reconcile_reloaded';

let visit: AbortController | null = null;

const balancePage = (): RegExpExecArray | null => BALANCE_PAGE.exec(location.pathname);

/**
 * Tells whether a dialog is open: an element with the role (a consent bar at the edge covers nothing), or a fixed
 * element over the middle of the window (hosts' terms and confirmations have no role).
 */
const hasDialog = (): boolean => {
	let at = document.elementFromPoint(innerWidth / 2, innerHeight / 2);
	while (at && getComputedStyle(at).position !== 'fixed') at = at.parentElement;
	if (at) return true;
	return Array.from(document.querySelectorAll(DIALOG)).some(
		(dialog) => dialog.getClientRects().length && getComputedStyle(dialog).visibility === 'visible'
	);
};

/**
 * Returns a function that tells whether a reload would take something from the user: they acted just now; or a
 * control that they used holds text, stays chosen (an amount), or is disabled (its request is in flight).
 *
 * It watches the user because hosts mark a new top-up differently, and store it only when its request has been
 * answered. Values and states that the page sets by itself do not count.
 */
const watchUser = (signal: AbortSignal): (() => boolean) => {
	const used = new Set<Element>();
	let actedAt = 0;
	const note = ({ type, target }: Event): void => {
		actedAt = Date.now();
		if (!(target instanceof Element)) return;
		const control = type === 'input' ? target : type === 'click' && target.closest('button');
		if (control) used.add(control);
	};
	for (const type of ['click', 'input', 'keydown']) {
		document.addEventListener(type, note, { capture: true, signal });
	}
	return () =>
		Date.now() < actedAt + IDLE_MS ||
		Array.from(used).some(
			(control) =>
				control.isConnected &&
				(control.matches(':disabled, [aria-pressed=true]') ||
					(!control.matches('button') && (control as HTMLInputElement).value))
		);
};

/**
 * Reloads once for each top-up, as soon as nothing is in the way. Ends without a reload when the user leaves the
 * page, and when the stored top-up is gone (the page clears it when it shows the credit) or is a newer one.
 */
const reloadOnce = (flow: string, from: number, isBusy: () => boolean, visit: AbortController) => {
	const check = (): void => {
		const isDue = balancePage() && localStorage.getItem(FLOW_KEY) === flow;
		if (isDue && (Date.now() < from || isBusy() || hasDialog())) return;
		visit.abort();
		if (!isDue) return;
		sessionStorage.setItem(RELOADED_KEY, flow);
		location.reload();
	};
	// An interval, since values, layout and idle time change without a mutation. It slows down in a hidden page.
	const timer = setInterval(check, 1000);
	document.addEventListener('visibilitychange', check, { signal: visit.signal });
	visit.signal.addEventListener('abort', () => {
		clearInterval(timer);
	});
};

const reconcile = async (base: string, visit: AbortController): Promise<void> => {
	const { signal } = visit;
	const token = localStorage.getItem('token');
	const flow = localStorage.getItem(FLOW_KEY);
	if (!token || !flow || sessionStorage.getItem(RELOADED_KEY) === flow) return;
	const began = Date.now();
	const isBusy = watchUser(signal);
	const last = await reconcileTopupOnReturn({
		token,
		signal,
		// The origin keeps the token at home: a path may begin with two slashes.
		apiBaseUrl: `${location.origin}${base}/api/v1`,
		onStep: () => {
			if (!balancePage()) visit.abort();
		}
	});
	if (last?.state !== 'credited' || signal.aborted) {
		visit.abort();
		return;
	}
	const from = Math.max(Date.now() + PAGE_NOTICES_MS, began + PAGE_POLLS_MS);
	reloadOnce(flow, from, isBusy, visit);
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
