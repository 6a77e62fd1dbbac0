// Where we are. The application may lie below a base path, next to which its own scripts are.
export const base = new URL('..', import.meta.url).pathname.replace(/\/$/, '');

export const path = () => location.pathname.slice(base.length) || '/';

let arrive = () => undefined;

/** Call `listener` now and after each move. */
export function onArrival(listener) {
	arrive = listener;
	addEventListener('popstate', arrive);
	arrive();
}

/** Move inside the page, as a front end with a router does. */
export function move(to, { replace = false } = {}) {
	history[replace ? 'replaceState' : 'pushState'](null, '', base + to);
	arrive();
}
