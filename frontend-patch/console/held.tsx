/** What an audit found that a person can credit or has to decide about. */
import { useEffect, useRef, useState } from 'preact/hooks';
import type { Api, ApiError, Finding, Report } from './api';
import { Id, type Audit } from './audit';
import { ReleaseDialog, type Settled } from './release';
import { Section } from './report';
import { Table } from './table';
import { useTexts } from './texts';

interface Props {
	api: Api;
	audit: Audit | null;
	mode: Report['mode'] | null;
	onSignedOut: (error: ApiError) => void;
}

export function HeldPayments({ api, audit, mode, onSignedOut }: Props) {
	const { t, money, named, inMoscow } = useTexts();
	const [opened, setOpened] = useState<Finding | null>(null);
	const [settled, setSettled] = useState<ReadonlyMap<string, Settled>>(new Map());
	const closed = useRef<string | null>(null);
	const held = heldAmong(audit?.findings ?? []);

	// The dialog gives the focus back to its button; after a release that is gone, and its row's state gets it.
	useEffect(() => {
		if (opened || !closed.current) return;
		document.getElementById(stateId(closed.current))?.focus();
		closed.current = null;
	}, [opened]);

	const action = (finding: Finding) => {
		const outcome = settled.get(finding.payment_id);
		if (outcome) {
			return (
				<strong id={stateId(finding.payment_id)} class="released" tabIndex={-1}>
					{outcome.kopeks === null
						? t('held.settled')
						: t('held.released', { money: money(outcome.kopeks, finding.currency) })}
				</strong>
			);
		}
		if (!finding.releasable || !finding.reason) return t('held.not_releasable');
		if (mode !== 'credit') return t(mode ? 'held.observing' : 'held.mode_unknown');
		return (
			<button
				aria-label={t('release.open_for', { id: finding.payment_id })}
				aria-haspopup="dialog"
				onClick={() => {
					setOpened(finding);
				}}
			>
				{t('release.open')}
			</button>
		);
	};

	return (
		<Section id="held" title={t('held.title')} lead={t('held.lead')}>
			{held.length === 0 && <p class="empty">{t(emptyKey(audit))}</p>}
			{held.length > 0 && (
				<Table
					caption={t('held.title')}
					isCaptionHidden
					narrow="cards"
					keyOf={(finding) => finding.payment_id}
					rows={held}
					columns={[
						{
							head: t('audit.payment'),
							isHeader: true,
							cell: (finding) => <Id id={finding.payment_id} />
						},
						{
							head: t('audit.reason'),
							cell: ({ reason }) => reason && <Reason reason={reason} />
						},
						{
							head: t('audit.amount'),
							isNumber: true,
							cell: (finding) => money(finding.amount_kopeks, finding.currency)
						},
						{ head: t('audit.owner'), cell: (finding) => <Id id={finding.user_id} /> },
						{
							head: t('audit.captured_at'),
							cell: ({ captured_at: at }) => (at ? inMoscow(at) : t('audit.unknown'))
						},
						{ head: t('held.action'), cell: action }
					]}
				/>
			)}
			{opened && (
				<ReleaseDialog
					api={api}
					finding={opened}
					reason={named('reason', opened.reason ?? '')}
					onSettled={(outcome) => {
						setSettled((before) => new Map(before).set(opened.payment_id, outcome));
					}}
					onSignedOut={onSignedOut}
					onClose={() => {
						closed.current = opened.payment_id;
						setOpened(null);
					}}
				/>
			)}
		</Section>
	);
}

export function Reason({ reason }: { reason: string }) {
	const { named } = useTexts();
	return (
		<>
			{named('reason', reason)} <code class="muted">{reason}</code>
			<br />
			<small class="muted">{named('reason', reason, 'look')}</small>
		</>
	);
}

/** One for each payment, which may be found in several classes; the one that can be released, if any. */
export function heldAmong(findings: Finding[]): Finding[] {
	const held = new Map<string, Finding>();
	for (const finding of findings) {
		if (!finding.releasable && finding.class !== 'held') continue;
		if (!held.get(finding.payment_id)?.releasable) held.set(finding.payment_id, finding);
	}
	return [...held.values()];
}

const stateId = (paymentId: string): string => `released-${paymentId}`;

const emptyKey = (audit: Audit | null) =>
	!audit ? 'held.idle' : audit.state === 'done' ? 'held.none' : 'held.none_yet';
