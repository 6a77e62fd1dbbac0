// openwebui-billing-reconcile: on return from the provider the balance page asks after the top-up.
// Built from frontend-patch/ with "npm run build": the comments are there, and changes belong there.
(() => {
	'use strict';

	const FLOW_KEY = 'billing_topup_flow_v1';
	const FLOW_TTL_MS = 10 * 60 * 1000;
	const ANSWER_MS = 20 * 1000;
	class TopupReconcileError extends Error {
		constructor(status, detail, retryAfter) {
			super(detail);
			this.status = status;
			this.detail = detail;
			this.retryAfter = retryAfter;
		}
	}
	const failed = (status, detail, retryAfter = null) => {
		const error = new TopupReconcileError(status, detail, retryAfter);
		return { result: undefined, error, retryAfter };
	};
	const ask = async (token, id, apiBaseUrl = '/api/v1', signal) => {
		const response = await fetch(`${apiBaseUrl}/billing/topup/reconcile`, {
			method: 'POST',
			headers: { 'Content-Type': 'application/json', Authorization: `Bearer ${token}` },
			body: JSON.stringify({ payment_id: id }),
			signal: signal ?? null
		}).catch((why) => String(why));
		if (typeof response === 'string') return failed(0, response);
		const { status, ok, headers } = response;
		const retryAfter = Math.max(0, Number(headers.get('Retry-After'))) || null;
		const body = await response.json().catch(() => null);
		if (ok && typeof body?.credited === 'boolean') {
			return { result: body, error: undefined, retryAfter };
		}
		const { detail } = body ?? {};
		const words = typeof detail === 'string' ? detail : `Request failed with status ${status}`;
		return failed(status, words, retryAfter);
	};
	const pause = (ms, lost, signal) =>
		new Promise((resolve) => {
			const over = new AbortController();
			let due = false;
			const check = (event) => {
				due || (due = event?.type !== 'visibilitychange');
				if (!signal?.aborted && (!due || document.visibilityState === 'hidden')) return;
				clearTimeout(timer);
				over.abort();
				resolve();
			};
			const timer = setTimeout(check, ms);
			document.addEventListener('visibilitychange', check, { signal: over.signal });
			signal?.addEventListener('abort', check, { signal: over.signal });
			if (lost) window.addEventListener('online', check, { signal: over.signal });
		});
	const readFlow = () => {
		try {
			const stored = JSON.parse(localStorage.getItem(FLOW_KEY) ?? '');
			const { payment_id: id, started_at_ms: startedAt } = stored;
			if (typeof id !== 'string' || !/^[\w-]{1,64}$/.test(id)) return null;
			const endsAt = Math.min(Number(startedAt), Date.now()) + FLOW_TTL_MS;
			return Date.now() < endsAt ? { id, endsAt } : null;
		} catch {
			return null;
		}
	};
	const reconcileTopup = async (token, paymentId, apiBaseUrl) => {
		const { result, error } = await ask(token, paymentId, apiBaseUrl);
		if (error) throw error;
		return result;
	};
	const reconcileTopupOnReturn = async (options) => {
		const { token, apiBaseUrl, signal, onStep } = options;
		const step = (taken) => {
			onStep?.(taken);
			return taken;
		};
		const flow = readFlow();
		if (!flow) return null;
		for (let wait = 0, backoff = 0, lost = false; ;) {
			const ready = !wait && document.visibilityState !== 'hidden';
			if (!ready && !signal?.aborted) await pause(wait, lost, signal);
			if (signal?.aborted) return step({ state: 'aborted' });
			if (Date.now() >= flow.endsAt) return step({ state: 'expired' });
			step({ state: 'asking' });
			const { result, error, retryAfter } =
				(await Promise.race([
					ask(token, flow.id, apiBaseUrl, signal),
					pause(ANSWER_MS, false, signal)
				])) ?? failed(0, 'No answer');
			if (result?.credited) return step({ state: 'credited', result });
			if (result?.provider_status === 'canceled') return step({ state: 'canceled', result });
			if (error && error.status >= 400 && error.status < 500 && error.status !== 429) {
				return step({ state: 'refused', error });
			}
			backoff = result && retryAfter ? 0 : Math.min(60, 2 * backoff || 3);
			lost = error?.status === 0;
			wait = Math.min(1000 * Math.max(backoff, retryAfter ?? 0), flow.endsAt - Date.now());
			if (!signal?.aborted) step({ state: 'waiting', result, error, retryInMs: wait });
		}
	};

	const BALANCE_PAGE = /^(.*)\/billing\/balance\/?$/;
	const PAGE_POLLS_MS = 23 * 1000;
	const PAGE_NOTICES_MS = 5 * 1000;
	const IDLE_MS = 30 * 1000;
	const DIALOG = '[role$=dialog], [aria-modal=true], dialog[open]';
	const RELOADED_KEY = 'billing_topup_reconcile_reloaded';
	let visit = null;
	const balancePage = () => BALANCE_PAGE.exec(location.pathname);
	const hasDialog = () => {
		let at = document.elementFromPoint(innerWidth / 2, innerHeight / 2);
		while (at && getComputedStyle(at).position !== 'fixed') at = at.parentElement;
		if (at) return true;
		return Array.from(document.querySelectorAll(DIALOG)).some(
			(dialog) =>
				dialog.getClientRects().length && getComputedStyle(dialog).visibility === 'visible'
		);
	};
	const watchUser = (signal) => {
		const used = new Set();
		let actedAt = 0;
		const note = ({ type, target }) => {
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
						(!control.matches('button') && control.value))
			);
	};
	const reloadOnce = (flow, from, isBusy, visit) => {
		const check = () => {
			const isDue = balancePage() && localStorage.getItem(FLOW_KEY) === flow;
			if (isDue && (Date.now() < from || isBusy() || hasDialog())) return;
			visit.abort();
			if (!isDue) return;
			sessionStorage.setItem(RELOADED_KEY, flow);
			location.reload();
		};
		const timer = setInterval(check, 1000);
		document.addEventListener('visibilitychange', check, { signal: visit.signal });
		visit.signal.addEventListener('abort', () => {
			clearInterval(timer);
		});
	};
	const reconcile = async (base, visit) => {
		const { signal } = visit;
		const token = localStorage.getItem('token');
		const flow = localStorage.getItem(FLOW_KEY);
		if (!token || !flow || sessionStorage.getItem(RELOADED_KEY) === flow) return;
		const began = Date.now();
		const isBusy = watchUser(signal);
		const last = await reconcileTopupOnReturn({
			token,
			signal,
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
	const look = () => {
		const base = balancePage()?.[1];
		if (base === undefined) {
			visit?.abort();
			visit = null;
		} else if (!visit) {
			visit = new AbortController();
			reconcile(base, visit).catch(() => undefined);
		}
	};
	look();
	window.navigation?.addEventListener('currententrychange', look);
	window.addEventListener('pageshow', ({ persisted }) => {
		if (!persisted) return;
		visit?.abort();
		visit = null;
		look();
	});
})();
