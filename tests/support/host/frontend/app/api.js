// The host's API.
import { base } from './place.js';

export class ApiError extends Error {
	constructor(status, detail) {
		super(detail);
		this.status = status;
	}
}

async function call(method, path, body) {
	const headers = { 'Content-Type': 'application/json' };
	if (localStorage.token) headers.Authorization = `Bearer ${localStorage.token}`;
	const response = await fetch(`${base}/api/v1${path}`, {
		method,
		headers,
		body: body && JSON.stringify(body)
	});
	const answer = await response.json().catch(() => ({}));
	if (!response.ok) {
		throw new ApiError(
			response.status,
			answer.detail ?? `Request failed with status ${response.status}`
		);
	}
	return answer;
}

export const signIn = (email, password) => call('POST', '/auths/signin', { email, password });
export const getBalance = () => call('GET', '/billing/balance');
export const getLedger = () => call('GET', '/billing/ledger?limit=5');
export const getPricing = () => call('GET', '/billing/public/pricing-config');
export const createTopup = (amount_kopeks, return_url) =>
	call('POST', '/billing/topup', { amount_kopeks, return_url });
