import { render } from 'preact';
import { act } from 'preact/test-utils';
import { afterEach, beforeEach, describe, expect, it, test, vi } from 'vitest';
import { ApiError, type Api, type ReleaseAnswer, type ReleaseRequest } from './api';
import { heldAmong } from './held';
import { ReleaseDialog } from './release';
import { FINDING, PREVIEW } from './samples';

const RELEASED = { ...PREVIEW, payment_status: 'succeeded', credited: true };

const release = vi.fn<(request: ReleaseRequest) => Promise<ReleaseAnswer>>();
const onSettled = vi.fn();
const onSignedOut = vi.fn();
const onClose = vi.fn();
let root: HTMLElement;

beforeEach(async () => {
	HTMLDialogElement.prototype.showModal = function () {
		this.open = true;
	};
	root = document.body.appendChild(document.createElement('div'));
	await act(() => {
		render(
			<ReleaseDialog
				api={{ release } as unknown as Api}
				finding={FINDING}
				reason="Amount is not what was ordered"
				onSettled={onSettled}
				onSignedOut={onSignedOut}
				onClose={onClose}
			/>,
			root
		);
	});
});

afterEach(() => {
	render(null, root);
	root.remove();
});

const button = (name: string): HTMLButtonElement => {
	const found = [...root.querySelectorAll('button')].find((element) =>
		element.textContent.startsWith(name)
	);
	if (!found) throw new Error(`no button ${name}`);
	return found;
};
const confirmButton = () => button('Confirm');

async function click(name: string): Promise<void> {
	await act(async () => {
		button(name).click();
		await Promise.resolve();
	});
}

async function write(note: string): Promise<void> {
	const field = root.querySelector('textarea');
	await act(() => {
		if (field) field.value = note;
		field?.dispatchEvent(new Event('input', { bubbles: true }));
	});
}

async function preview(): Promise<void> {
	release.mockResolvedValueOnce(PREVIEW);
	await click('Preview');
}

describe('Confirm is off', () => {
	test('at first', () => {
		expect(confirmButton().disabled).toBe(true);
	});

	test('with a preview and no note', async () => {
		await preview();
		expect(confirmButton().disabled).toBe(true);
		await write('  \n ');
		expect(confirmButton().disabled).toBe(true);
	});

	test('with a note and no preview, also for the form itself', async () => {
		await write('checked');
		expect(confirmButton().disabled).toBe(true);
		await act(() => {
			root.querySelector('form')?.dispatchEvent(new Event('submit', { cancelable: true }));
		});
		expect(release).not.toHaveBeenCalled();
	});

	test('after a preview that failed', async () => {
		await preview();
		await write('checked');
		release.mockRejectedValueOnce(new ApiError('refused', 409, 'Refunded.', 'refunded'));
		await click('Preview');
		expect(confirmButton().disabled).toBe(true);
		expect(root.textContent).toContain('Refunded. The reason is now: Refunded.');
		expect(root.textContent).toContain('There is no preview.');
	});

	test('while it is being released', async () => {
		await preview();
		await write('checked');
		release.mockReturnValueOnce(new Promise(() => undefined));
		await click('Confirm');
		expect(confirmButton().disabled).toBe(true);
		expect(button('Cancel').disabled).toBe(true);
		await click('Preview');
		expect(release).toHaveBeenCalledTimes(2);
	});
});

it('previews with confirm: false and shows what would be done', async () => {
	await preview();
	expect(release).toHaveBeenCalledWith({
		payment_id: 'p-1',
		reason: 'amount_mismatch',
		note: '',
		confirm: false
	});
	const text = root.querySelector('.preview')?.textContent;
	for (const shown of ['₽900.00', 'u-1', 'w-1', 'succeeded', 'pending'])
		expect(text).toContain(shown);
	expect(onSettled).not.toHaveBeenCalled();
});

it('releases with confirm: true and the note, and says what was credited', async () => {
	await preview();
	await write(' checked ');
	expect(confirmButton().textContent).toBe('Confirm: credit ₽900.00');
	release.mockResolvedValueOnce(RELEASED);
	await click('Confirm');
	expect(release).toHaveBeenLastCalledWith({
		payment_id: 'p-1',
		reason: 'amount_mismatch',
		note: 'checked',
		confirm: true
	});
	expect(onSettled).toHaveBeenCalledWith({ kopeks: 90_000 });
	expect(root.querySelector('.result')?.textContent).toBe(
		'Released. ₽900.00 was credited to the wallet.'
	);
	expect(document.activeElement).toBe(root.querySelector('.result'));
	expect(root.querySelector('form')).toBeNull();
});

it('says so where another amount was credited than previewed', async () => {
	await preview();
	await write('checked');
	release.mockResolvedValueOnce({ ...RELEASED, amount_kopeks: 50_000 });
	await click('Confirm');
	expect(root.textContent).toContain('Released. ₽500.00 was credited');
	expect(root.textContent).toContain('not the amount of the preview, ₽900.00');
	expect(onSettled).toHaveBeenCalledWith({ kopeks: 50_000 });
});

it('does not say released where nothing was credited', async () => {
	await preview();
	await write('checked');
	release.mockResolvedValueOnce(PREVIEW);
	await click('Confirm');
	expect(root.textContent).not.toContain('Released');
	expect(root.textContent).toContain('says that nothing was credited');
	expect(onSettled).not.toHaveBeenCalled();
});

describe('a release that fails', () => {
	const fail = async (error: ApiError): Promise<void> => {
		await preview();
		await write('checked');
		release.mockRejectedValueOnce(error);
		await click('Confirm');
	};

	it('says that nothing was credited where the server refused', async () => {
		await fail(new ApiError('refused', 409, 'The wallet is gone.', 'wallet_missing'));
		expect(root.textContent).toContain(
			'The wallet is gone. The reason is now: Wallet does not exist'
		);
		expect(root.textContent).toContain('Nothing was credited.');
		expect(confirmButton().disabled).toBe(true);
		expect(onSettled).not.toHaveBeenCalled();
	});

	it.each([
		new ApiError('unreachable'),
		new ApiError('unreadable'),
		new ApiError('refused', 503, 'Busy')
	])('says that nobody knows after %s, and wants another preview', async (error) => {
		await fail(error);
		expect(root.textContent).toContain('It is not known whether it was credited.');
		expect(root.textContent).not.toContain('Nothing was credited.');
		expect(confirmButton().disabled).toBe(true);
		expect(root.querySelector('textarea')?.value).toBe('checked');
	});

	it('settles the row where somebody else has credited it', async () => {
		await fail(new ApiError('refused', 409, 'Already credited', 'already_credited'));
		expect(onSettled).toHaveBeenCalledWith({ kopeks: null });
	});

	it('tells the page where the administrator is signed out', async () => {
		await fail(new ApiError('refused', 401, 'No'));
		expect(onSignedOut).toHaveBeenCalledOnce();
	});
});

it('lists each held payment once, rather as the one that can be released', () => {
	const held = { ...FINDING, releasable: false };
	const other = { ...FINDING, class: 'uncredited', payment_id: 'p-2', releasable: false };
	const differs = { ...FINDING, class: 'amount_differs' };
	expect(heldAmong([held, other, differs])).toEqual([differs]);
	expect(heldAmong([differs, held])).toEqual([differs]);
});
