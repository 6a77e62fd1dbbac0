// openwebui-billing-reconcile: the balance page asks after top-ups whose webhook is late or lost.
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
	const ask = async ({ token, apiBaseUrl = '/api/v1', signal }, isAnswer, path, question) => {
		const json = question && { 'Content-Type': 'application/json' };
		const response = await fetch(`${apiBaseUrl}/billing/topup/reconcile${path}`, {
			method: 'POST',
			headers: { ...json, Authorization: `Bearer ${token}` },
			body: question ? JSON.stringify(question) : null,
			signal: signal ?? null
		}).catch((why) => String(why));
		if (typeof response === 'string') return failed(0, response);
		const { status, ok, headers } = response;
		const retryAfter = Math.max(0, Number(headers.get('Retry-After'))) || null;
		const body = await response.json().catch(() => null);
		if (ok && body && isAnswer(body)) return { result: body, retryAfter };
		const { detail } = body ?? {};
		const words = typeof detail === 'string' ? detail : `Request failed with status ${status}`;
		return failed(status, words, retryAfter);
	};
	const askOne = (options, id) =>
		ask(options, ({ credited }) => typeof credited === 'boolean', '', { payment_id: id });
	const askPending = (options) =>
		ask(options, ({ payments }) => Array.isArray(payments), '/pending');
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
	const poll = async ({ signal, onStep }, endsAt, send, conclude) => {
		const step = (taken) => {
			onStep?.(taken);
			return taken;
		};
		let wait = 0;
		let backoff = 0;
		let lost = false;
		for (;;) {
			const ready = !wait && document.visibilityState !== 'hidden';
			if (!ready && !signal?.aborted) await pause(wait, lost, signal);
			if (signal?.aborted) return step({ state: 'aborted' });
			if (Date.now() >= endsAt) return step({ state: 'expired' });
			step({ state: 'asking' });
			const { result, error, retryAfter } =
				(await Promise.race([send(), pause(ANSWER_MS, false, signal)])) ?? failed(0, 'No answer');
			const last = result && conclude(result, retryAfter);
			if (last) return step({ state: last, result });
			if (error && error.status >= 400 && error.status < 500 && error.status !== 429) {
				return step({ state: 'refused', error });
			}
			backoff = result && retryAfter ? 0 : Math.min(60, 2 * backoff || 3);
			lost = error?.status === 0;
			wait = Math.min(1000 * Math.max(backoff, retryAfter ?? 0), endsAt - Date.now());
			if (!signal?.aborted) step({ state: 'waiting', result, error, retryInMs: wait });
		}
	};
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
		const { result, error } = await askOne({ token, apiBaseUrl }, paymentId);
		if (error) throw error;
		return result;
	};
	const reconcileTopupOnReturn = async (options) => {
		const flow = readFlow();
		if (!flow) return null;
		return poll(
			options,
			flow.endsAt,
			() => askOne(options, flow.id),
			({ credited, provider_status: status }) =>
				credited ? 'credited' : status === 'canceled' ? status : null
		);
	};
	const reconcilePendingTopups = (options) => {
		const told = new Set();
		let open = [];
		const send = async () => {
			const answer = await askPending(options);
			const topups = answer.result?.payments;
			if (!topups) return answer;
			const gone = open.filter((id) => !topups.some((topup) => topup.payment_id === id));
			const answers = await Promise.all(gone.map((id) => askOne(options, id)));
			open = topups.filter(({ credited }) => !credited).map((topup) => topup.payment_id);
			topups.push(...answers.flatMap(({ result }) => result ?? []));
			return answer;
		};
		return poll(options, Date.now() + FLOW_TTL_MS, send, (result, retryAfter) => {
			const isNews = (topup) => topup.credited && !told.has(topup.payment_id);
			const payments = result.payments.filter(isNews);
			payments.forEach(({ payment_id: id }) => told.add(id));
			if (payments.length) options.onStep?.({ state: 'credited', result: { payments } });
			return retryAfter ? null : 'done';
		});
	};

	const BALANCE_PAGE = /^(.*)\/billing\/balance\/?$/;
	const PAGE_POLLS_MS = 23 * 1000;
	const PAGE_NOTICES_MS = 5 * 1000;
	const IDLE_MS = 30 * 1000;
	const DIALOG = '[role$=dialog], [aria-modal=true], dialog[open]';
	const RELOADED_KEY = 'billing_topup_reconcile_reloaded';
	let visit = null;
	const readReloaded = () => sessionStorage.getItem(RELOADED_KEY) ?? '';
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
			if (!balancePage()) return;
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
	const reloadOnce = (visit, marks, from, isDue) => {
		const end = () => {
			clearInterval(timer);
			document.removeEventListener('visibilitychange', check);
			visit.polling.until = 0;
		};
		const check = () => {
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
		const timer = setInterval(check, 1000);
		document.addEventListener('visibilitychange', check);
		visit.signal.addEventListener('abort', end);
	};
	const reconcile = async (visit) => {
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
			apiBaseUrl: `${location.origin}${base}/api/v1`
		};
		const stopElsewhere = () => {
			if (!balancePage()) visit.abort();
		};
		const credited = [];
		if (flow) {
			const last = await reconcileTopupOnReturn({ ...options, onStep: stopElsewhere });
			if (last?.state === 'credited' && !visit.signal.aborted) {
				credited.push(flow);
				const from = Math.max(Date.now() + PAGE_NOTICES_MS, began + PAGE_POLLS_MS);
				const isDue = () => localStorage.getItem(FLOW_KEY) === flow;
				reloadOnce(visit, credited, from, isDue);
			}
		} else {
			await reconcilePendingTopups({
				...options,
				onStep: ({ state, result }) => {
					stopElsewhere();
					if (state !== 'credited' || visit.signal.aborted) return;
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
	const begin = (visit) => {
		reconcile(visit).catch(() => undefined);
	};
	const leave = () => {
		visit?.abort();
		visit = null;
	};
	const look = () => {
		if (!balancePage()) {
			leave();
		} else if (!visit) {
			const leaving = new AbortController();
			visit = Object.assign(leaving, { isBusy: watchUser(leaving.signal), polling: { until: 0 } });
			begin(visit);
		}
	};
	look();
	window.navigation?.addEventListener('currententrychange', look);
	window.addEventListener('pagehide', leave);
	window.addEventListener('pageshow', ({ persisted }) => {
		if (persisted) look();
	});
	document.addEventListener('visibilitychange', () => {
		if (document.visibilityState === 'hidden' || readFlow()) return;
		if (visit?.signal.aborted) leave();
		if (!visit) look();
		else if (Date.now() >= visit.polling.until) begin(visit);
	});
})();
