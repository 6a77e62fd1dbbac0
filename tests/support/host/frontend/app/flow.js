// The top-up that a person has left for: stored before leaving, and counting for ten minutes.
const KEY = 'billing_topup_flow_v1';
const TTL_MS = 10 * 60 * 1000;

export const total = (balance) => balance.balance_topup_kopeks + balance.balance_included_kopeks;

export function storeFlow(paymentId, amountKopeks, balance) {
	const flow = {
		started_at_ms: Date.now(),
		amount_kopeks: amountKopeks,
		previous_total_kopeks: total(balance),
		payment_id: paymentId,
		return_to: null
	};
	localStorage.setItem(KEY, JSON.stringify(flow));
}

export function readFlow() {
	try {
		const flow = JSON.parse(localStorage.getItem(KEY));
		const numbers = [flow.started_at_ms, flow.amount_kopeks, flow.previous_total_kopeks];
		const whole = numbers.every((value) => typeof value === 'number') && flow.payment_id;
		return whole && Date.now() - flow.started_at_ms <= TTL_MS ? flow : null;
	} catch {
		return null;
	}
}

export const clearFlow = () => localStorage.removeItem(KEY);
