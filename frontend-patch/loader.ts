/** For a front end built before this existed: on the balance page only, behind the host's loader.js. */
import {
	FLOW_KEY,
	FLOW_TTL_MS,
	readFlow,
	reconcilePendingTopups,
	reconcileTopupOnReturn
} from './reconcile-topup';

const BALANCE_PAGE = /^(.*)\/billing\/balance\/?$/;
const PAGE_POLLS_MS = 23 * 1000; // the page asks for the balance six times, every three seconds
const PAGE_NOTICES_MS = 5 * 1000;
const IDLE_MS = 30 * 1000; // creating a top-up takes the host 15 s at most
const DIALOG = '[role$=dialog], [aria-modal=true], dialog[open]';
const RELOADED_KEY = 'billing_topup_reconcile_reloaded';

/** One stay on the balance page; aborted when it ends. */
type Visit = AbortController & { isBusy: () => boolean; polling: Polling };

/** The page asks until then, in milliseconds; with a reload due, for ever. */
interface Polling {
	until: number;
}

let visit: Visit | null = null;

const readReloaded = (): string => sessionStorage.getItem(RELOADED_KEY) ?? '';

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
		if (!balancePage()) return; // not every browser tells of a move
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
 * Reloads as soon as nothing is in the way, and notes for the session what for (`marks`), so that it comes once
 * for each. Ends without a reload when the user leaves the page, and when it is no longer due.
 */
const reloadOnce = (visit: Visit, marks: string[], from: number, isDue: () => boolean): void => {
	const end = (): void => {
		clearInterval(timer);
		document.removeEventListener('visibilitychange', check);
		visit.polling.until = 0;
	};
	const check = (): void => {
		if (!balancePage()) {
			visit.abort();
		} else if (!isDue()) {
			end();
		} else if (Date.now() >= from && !visit.isBusy() && !hasDialog()) {
			visit.abort();
			sessionStorage.setItem(RELOADED_KEY, [readReloaded(), ...marks].join('\n'));
			location.reload();
		}
	};
	visit.polling.until = Infinity;
	// An interval, since values, layout and idle time change without a mutation. It slows down in a hidden page.
	const timer = setInterval(check, 1000);
	document.addEventListener('visibilitychange', check);
	visit.signal.addEventListener('abort', end);
};

/** Asks about the stored top-up, or where there is none, about all that are open. */
const reconcile = async (visit: Visit): Promise<void> => {
	const polling = { until: 0 };
	visit.polling = polling;
	const token = localStorage.getItem('token');
	const stored = readFlow();
	const flow = stored && localStorage.getItem(FLOW_KEY);
	const reloaded = readReloaded();
	const base = balancePage()?.[1];
	if (!token || base === undefined || (flow && reloaded.includes(flow))) return;
	const began = Date.now();
	polling.until = stored?.endsAt ?? began + FLOW_TTL_MS;
	const options = {
		token,
		signal: visit.signal,
		// The origin keeps the token at home: a path may begin with two slashes.
		apiBaseUrl: `${location.origin}${base}/api/v1`
	};
	const stopElsewhere = (): void => {
		if (!balancePage()) visit.abort();
	};
	const credited: string[] = [];
	if (flow) {
		const last = await reconcileTopupOnReturn({ ...options, onStep: stopElsewhere });
		if (last?.state === 'credited' && !visit.signal.aborted) {
			credited.push(flow);
			const from = Math.max(Date.now() + PAGE_NOTICES_MS, began + PAGE_POLLS_MS);
			// The page clears the stored top-up when it shows the credit; another tab may store a newer one.
			const isDue = () => localStorage.getItem(FLOW_KEY) === flow;
			reloadOnce(visit, credited, from, isDue);
		}
	} else {
		await reconcilePendingTopups({
			...options,
			onStep: ({ state, result }) => {
				stopElsewhere();
				if (state !== 'credited' || visit.signal.aborted) return;
				// A credit whose record cannot be completed is reported on every visit.
				const ids = result?.payments.map(({ payment_id: id }) => JSON.stringify(id)) ?? [];
				const isFirst = !credited.length;
				credited.push(...ids.filter((id) => !reloaded.includes(id)));
				if (isFirst && credited.length) {
					reloadOnce(visit, credited, 0, () => true);
				}
			}
		});
	}
	if (!credited.length) polling.until = 0;
};

const begin = (visit: Visit): void => {
	// Storage may be forbidden: then there is nothing to do.
	reconcile(visit).catch(() => undefined);
};

const leave = (): void => {
	visit?.abort();
	visit = null;
};

/** On each arrival at the balance page, and never twice for one. */
const look = (): void => {
	if (!balancePage()) {
		leave();
	} else if (!visit) {
		const leaving = new AbortController();
		visit = Object.assign(leaving, { isBusy: watchUser(leaving.signal), polling: { until: 0 } });
		begin(visit);
	}
};

look();
// Moves inside the page, such as back from signing in, where the browser tells of them.
(window as { navigation?: EventTarget }).navigation?.addEventListener('currententrychange', look);
// Back from the provider with the browser's own button: the page is shown again as it was left.
window.addEventListener('pagehide', leave);
window.addEventListener('pageshow', ({ persisted }) => {
	if (persisted) look();
});
// Back from another tab or device, where a top-up may have been paid that this browser does not store.
document.addEventListener('visibilitychange', () => {
	if (document.visibilityState === 'hidden' || readFlow()) return;
	if (visit?.signal.aborted) leave();
	if (!visit) look();
	else if (Date.now() >= visit.polling.until) begin(visit);
});
