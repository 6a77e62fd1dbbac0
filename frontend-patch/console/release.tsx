/** The release of one held payment: preview, note, confirm. */
import type { ComponentChildren } from 'preact';
import { useEffect, useRef, useState } from 'preact/hooks';
import { ApiError, type Api, type Finding, type ReleaseAnswer } from './api';
import { Id } from './audit';
import { Facts } from './report';
import { useTexts } from './texts';

const MOST_CHARACTERS = 500;

/** How the payment was settled: `kopeks` were credited by us; `null`: somebody else did. */
export interface Settled {
	kopeks: number | null;
}

interface Props {
	api: Api;
	finding: Finding;
	/** In words. */
	reason: string;
	onSettled: (settled: Settled) => void;
	onSignedOut: (error: ApiError) => void;
	onClose: () => void;
}

interface Failure {
	error: ApiError;
	wasConfirming: boolean;
}

export function ReleaseDialog(props: Props) {
	const { api, finding, onSettled, onSignedOut, onClose } = props;
	const { t, money } = useTexts();
	const dialog = useRef<HTMLDialogElement>(null);
	const result = useRef<HTMLDivElement>(null);
	const [preview, setPreview] = useState<ReleaseAnswer | null>(null);
	const [released, setReleased] = useState<ReleaseAnswer | null>(null);
	const [failure, setFailure] = useState<Failure | null>(null);
	const [busy, setBusy] = useState<'preview' | 'confirm' | null>(null);
	const [note, setNote] = useState('');
	const mayConfirm = preview !== null && note.trim() !== '' && !busy;

	useEffect(() => {
		dialog.current?.showModal();
	}, []);
	useEffect(() => {
		if (released) result.current?.focus();
	}, [released]);

	const send = async (confirm: boolean): Promise<void> => {
		if (busy || !finding.reason) return;
		setBusy(confirm ? 'confirm' : 'preview');
		setFailure(null);
		if (!confirm) setPreview(null);
		try {
			const { payment_id, reason } = finding;
			const answer = await api.release({ payment_id, reason, note: note.trim(), confirm });
			if (!confirm) {
				setPreview(answer);
			} else {
				setReleased(answer);
				if (answer.credited) onSettled({ kopeks: answer.amount_kopeks });
			}
		} catch (error) {
			if (!(error instanceof ApiError)) throw error;
			if (error.isSignedOut) onSignedOut(error);
			if (error.reason === 'already_credited') onSettled({ kopeks: null });
			setPreview(null); // what it said may be so no more
			setFailure({ error, wasConfirming: confirm });
		} finally {
			setBusy(null);
		}
	};

	const amount = (answer: ReleaseAnswer) =>
		money(answer.amount_kopeks, answer.currency ?? finding.currency);
	return (
		<dialog
			ref={dialog}
			aria-labelledby="release-title"
			onClose={onClose}
			onCancel={(event) => {
				if (busy === 'confirm') event.preventDefault();
			}}
		>
			<h2 id="release-title">{t('release.title')}</h2>
			<FindingFacts finding={finding} reason={props.reason} />
			{released ? (
				<div ref={result} tabIndex={-1} role="status" class="result">
					{released.credited ? (
						<p class="released">{t('release.done', { money: amount(released) })}</p>
					) : (
						<p class="problem">{t('release.not_credited')}</p>
					)}
					{preview && released.credited && preview.amount_kopeks !== released.amount_kopeks && (
						<p class="notice">{t('release.done.differs', { money: amount(preview) })}</p>
					)}
				</div>
			) : (
				<form
					noValidate
					onSubmit={(event) => {
						event.preventDefault();
						if (mayConfirm) void send(true);
					}}
				>
					<Step>
						<button
							type="button"
							autofocus
							aria-disabled={busy !== null}
							aria-describedby="preview-hint"
							onClick={() => void send(false)}
						>
							{t('release.preview')}
						</button>
						<p id="preview-hint" class="hint">
							{t('release.preview.hint')}
						</p>
					</Step>
					<div role="status">
						{busy && <p>{t(`release.${busy}.running`)}</p>}
						{preview && <Preview preview={preview} finding={finding} amount={amount(preview)} />}
					</div>
					<div role="alert">{failure && <FailureText {...failure} />}</div>
					<Step>
						<label for="release-note">{t('release.note')}</label>
						<textarea
							id="release-note"
							required
							rows={3}
							maxLength={MOST_CHARACTERS}
							aria-describedby="note-hint"
							value={note}
							readOnly={busy === 'confirm'}
							onInput={(event) => {
								setNote(event.currentTarget.value);
							}}
						/>
						<p id="note-hint" class="hint">
							{t('release.note.hint', { left: MOST_CHARACTERS - note.length })}
						</p>
					</Step>
					<p class="actions">
						<button class="primary" disabled={!mayConfirm} aria-describedby="confirm-hint">
							{preview
								? t('release.confirm_amount', { money: amount(preview) })
								: t('release.confirm')}
						</button>
						<CloseButton
							dialog={dialog}
							isDisabled={busy === 'confirm'}
							label={t('release.cancel')}
						/>
					</p>
					<p id="confirm-hint" class="hint" hidden={mayConfirm}>
						{t('release.confirm.hint')}
					</p>
				</form>
			)}
			{released && (
				<p class="actions">
					<CloseButton dialog={dialog} label={t('release.close')} />
				</p>
			)}
		</dialog>
	);
}

const Step = ({ children }: { children: ComponentChildren }) => <div class="step">{children}</div>;

interface CloseButtonProps {
	dialog: { current: HTMLDialogElement | null };
	isDisabled?: boolean;
	label: string;
}

function CloseButton({ dialog, isDisabled = false, label }: CloseButtonProps) {
	return (
		<button
			type="button"
			disabled={isDisabled}
			onClick={() => {
				dialog.current?.close();
			}}
		>
			{label}
		</button>
	);
}

function FindingFacts({ finding, reason }: { finding: Finding; reason: string }) {
	const { t, money, inMoscow } = useTexts();
	const { captured_at: capturedAt } = finding;
	return (
		<Facts
			facts={[
				[t('audit.payment'), <Id id={finding.payment_id} />],
				[t('audit.reason'), reason],
				[t('release.found'), money(finding.amount_kopeks, finding.currency)],
				[t('audit.captured_at'), capturedAt ? inMoscow(capturedAt) : t('audit.unknown')]
			]}
		/>
	);
}

interface PreviewProps {
	preview: ReleaseAnswer;
	finding: Finding;
	amount: string;
}

function Preview({ preview, finding, amount }: PreviewProps) {
	const { t } = useTexts();
	return (
		<div class="preview">
			<h3>{t('release.preview.title')}</h3>
			<Facts
				facts={[
					[t('release.amount'), <strong>{amount}</strong>],
					[t('audit.owner'), <Id id={preview.user_id ?? finding.user_id} />],
					[t('audit.wallet'), <Id id={preview.wallet_id ?? finding.wallet_id} />],
					[t('release.provider_status'), <code>{preview.provider_status}</code>],
					[
						t('release.payment_status'),
						preview.payment_status ? <code>{preview.payment_status}</code> : t('release.no_record')
					]
				]}
			/>
		</div>
	);
}

function FailureText({ error, wasConfirming }: Failure) {
	const { t, named, problem } = useTexts();
	const texts = [problem(error)];
	if (error.reason) texts.push(t('release.reason_now', { reason: named('reason', error.reason) }));
	if (!wasConfirming) texts.push(t('release.preview_failed'));
	else texts.push(t(error.isOutcomeUnknown ? 'release.outcome_unknown' : 'release.refused'));
	return <p class="problem">{texts.join(' ')}</p>;
}
