/** An audit: its days, its progress, what it found. */
import { useEffect, useRef, useState } from 'preact/hooks';
import { ApiError, type Api, type Finding, type Progress, type Summary } from './api';
import { addDays, daysBetween, todayInMoscow } from './format';
import { Facts, Section } from './report';
import { Table } from './table';
import { useTexts } from './texts';

const MOST_DAYS = 92;
const DEFAULT_DAYS = 30;
const ROWS_AT_A_TIME = 200;

/** `findings` are all only in `done`. */
export interface Audit {
	state: 'running' | 'stopped' | 'failed' | 'done';
	progress: Progress;
	findings: Finding[];
	summary: Summary | null;
	error: ApiError | null;
	endedAt: number | null;
}

/** The audit of this page, and what starts and stops it. Leaving the page ends it. */
export function useAudit(api: Api, onSignedOut: (error: ApiError) => void) {
	const [audit, setAudit] = useState<Audit | null>(null);
	const running = useRef<AbortController | null>(null);
	const stop = () => {
		running.current?.abort();
	};
	useEffect(() => stop, []);

	const run = async (since: string, until: string): Promise<void> => {
		const { signal } = (running.current = new AbortController());
		let now: Audit = {
			state: 'running',
			progress: { payments: 0, entries: 0 },
			findings: [],
			summary: null,
			error: null,
			endedAt: null
		};
		const show = (change: Partial<Audit>) => {
			now = { ...now, ...change };
			setAudit(now);
		};
		show({});
		try {
			for await (const lines of api.audit(since, until, signal)) {
				if (signal.aborted) break;
				const change: Partial<Audit> = {};
				const found: Finding[] = [];
				for (const line of lines) {
					if ('progress' in line) change.progress = line.progress;
					else if ('finding' in line) found.push(line.finding);
					else change.summary = line.summary;
				}
				show({ ...change, findings: [...now.findings, ...found] });
			}
			show({ state: signal.aborted ? 'stopped' : 'done', endedAt: Date.now() });
		} catch (error) {
			if (!(error instanceof ApiError)) throw error;
			if (error.isSignedOut) onSignedOut(error);
			const isOurs = signal.aborted; // stopped: the broken connection is no failure
			show({
				state: isOurs ? 'stopped' : 'failed',
				error: isOurs ? null : error,
				endedAt: Date.now()
			});
		}
	};
	return { audit, run, stop };
}

interface Props {
	audit: Audit | null;
	onRun: (since: string, until: string) => void;
	onStop: () => void;
}

export function AuditSection({ audit, onRun, onStop }: Props) {
	const { t } = useTexts();
	return (
		<Section id="audit" title={t('audit.title')} lead={t('audit.lead')}>
			<AuditForm isRunning={audit?.state === 'running'} onRun={onRun} onStop={onStop} />
			<AuditState audit={audit} />
			{audit?.summary && <Totals summary={audit.summary} />}
			{audit && audit.findings.length > 0 && <Findings findings={audit.findings} />}
		</Section>
	);
}

function AuditForm({ isRunning, onRun, onStop }: Omit<Props, 'audit'> & { isRunning: boolean }) {
	const { t } = useTexts();
	const [today] = useState(todayInMoscow);
	const [since, setSince] = useState(addDays(today, 1 - DEFAULT_DAYS));
	const [until, setUntil] = useState(addDays(today, 1));
	const days = since && until ? daysBetween(since, until) : 0;
	const isValid = days >= 1 && days <= MOST_DAYS;
	return (
		<form
			class="controls"
			noValidate
			onSubmit={(event) => {
				event.preventDefault();
				if (isRunning) onStop();
				else if (isValid) onRun(since, until);
			}}
		>
			<DateField
				name="since"
				label={t('audit.since')}
				value={since}
				isValid={isValid}
				onChange={setSince}
			/>
			<DateField
				name="until"
				label={t('audit.until')}
				value={until}
				isValid={isValid}
				onChange={setUntil}
			/>
			{/* One button, so that the focus stays on it. */}
			<button class={isRunning ? '' : 'primary'}>
				{t(isRunning ? 'audit.stop' : 'audit.run')}
			</button>
			<p id="audit-hint" class="hint">
				{t('audit.hint')}
			</p>
			<p id="audit-dates" class="problem" role="alert" hidden={isValid}>
				{isValid ? '' : t('audit.bad_dates')}
			</p>
		</form>
	);
}

interface DateFieldProps {
	name: string;
	label: string;
	value: string;
	isValid: boolean;
	onChange: (value: string) => void;
}

function DateField({ name, label, value, isValid, onChange }: DateFieldProps) {
	return (
		<label>
			{label}
			<input
				type="date"
				name={name}
				required
				value={value}
				aria-invalid={!isValid}
				aria-describedby="audit-hint audit-dates"
				onInput={(event) => {
					onChange(event.currentTarget.value);
				}}
			/>
		</label>
	);
}

/** Said aloud as it changes. */
function AuditState({ audit }: { audit: Audit | null }) {
	const { t, count, date, moment, problem } = useTexts();
	if (!audit) return <p class="empty">{t('audit.idle')}</p>;
	const { state, progress, summary, error, endedAt } = audit;
	const findings = count(audit.findings.length);
	return (
		<div class="state" role="status">
			{state === 'running' && (
				<>
					<progress aria-label={t('audit.title')} />
					<p>
						{t('audit.running', {
							payments: count(progress.payments),
							entries: count(progress.entries),
							findings
						})}
					</p>
				</>
			)}
			{state === 'stopped' && <p class="notice">{t('audit.stopped')}</p>}
			{state === 'failed' && (
				<p class="problem">
					{error && problem(error)} {t('audit.failed')}
				</p>
			)}
			{state === 'done' && summary && (
				<p>
					{t('audit.done', { since: date(summary.since), until: date(summary.until), findings })}{' '}
					{audit.findings.length === 0 && summary.checked.unreadable === 0 && t('audit.clean')}
				</p>
			)}
			{endedAt !== null && <p class="muted">{t('audit.done_at', { moment: moment(endedAt) })}</p>}
		</div>
	);
}

function Totals({ summary }: { summary: Summary }) {
	const { t, count, money, named } = useTexts();
	const { checked, settled, totals } = summary;
	const rows = Object.entries(totals).filter(([, sum]) => sum.count);
	return (
		<>
			<Facts
				facts={[
					[t('audit.checked.payments'), count(checked.payments)],
					[t('audit.checked.entries'), count(checked.entries)],
					[t('audit.checked.others'), count(checked.others)],
					[t('audit.checked.settled'), count(settled)]
				]}
			/>
			{checked.unreadable > 0 && (
				<p class="problem">{t('audit.unreadable', { unreadable: count(checked.unreadable) })}</p>
			)}
			{rows.length > 0 && (
				<Table
					caption={t('audit.totals')}
					narrow="cards"
					keyOf={([name]) => name}
					rows={rows}
					columns={[
						{ head: t('audit.class'), isHeader: true, cell: ([name]) => named('class', name) },
						{ head: t('audit.meaning'), cell: ([name]) => named('class', name, 'meaning') },
						{ head: t('audit.payments'), isNumber: true, cell: ([, sum]) => count(sum.count) },
						{ head: t('audit.amount'), isNumber: true, cell: ([, sum]) => money(sum.kopeks) }
					]}
				/>
			)}
		</>
	);
}

function Findings({ findings }: { findings: Finding[] }) {
	const { t, count, money, named, inMoscow } = useTexts();
	const [chosen, setChosen] = useState('');
	const [most, setMost] = useState(ROWS_AT_A_TIME);
	const classes = [...new Set(findings.map((finding) => finding.class))];
	const ofClass = (name: string) => findings.filter((finding) => finding.class === name);
	const shown = classes.includes(chosen) ? ofClass(chosen) : findings;
	return (
		<>
			<h3>{t('audit.findings')}</h3>
			<div class="controls">
				<label>
					{t('audit.filter')}
					<select
						value={chosen}
						onChange={(event) => {
							setChosen(event.currentTarget.value);
							setMost(ROWS_AT_A_TIME);
						}}
					>
						<option value="">{t('audit.all', { count: count(findings.length) })}</option>
						{classes.map((name) => (
							<option key={name} value={name}>
								{t('audit.one', { name: named('class', name), count: count(ofClass(name).length) })}
							</option>
						))}
					</select>
				</label>
			</div>
			<Table
				caption={t('audit.findings')}
				isCaptionHidden
				narrow="cards"
				keyOf={(finding) => `${finding.class} ${finding.payment_id}`}
				rows={shown.slice(0, most)}
				columns={[
					{
						head: t('audit.payment'),
						isHeader: true,
						cell: (finding) => <Id id={finding.payment_id} />
					},
					{ head: t('audit.class'), cell: (finding) => named('class', finding.class) },
					{
						head: t('audit.amount'),
						isNumber: true,
						cell: (finding) => money(finding.amount_kopeks, finding.currency)
					},
					{ head: t('audit.owner'), cell: (finding) => <Id id={finding.user_id} /> },
					{ head: t('audit.wallet'), cell: (finding) => <Id id={finding.wallet_id} /> },
					{
						head: t('audit.reason'),
						cell: ({ reason }) => (reason ? named('reason', reason) : '—')
					},
					{
						head: t('audit.captured_at'),
						cell: ({ captured_at: at }) => (at ? inMoscow(at) : t('audit.unknown'))
					}
				]}
			/>
			{shown.length > most && (
				<button
					onClick={() => {
						setMost(most + ROWS_AT_A_TIME);
					}}
				>
					{t('audit.more', { count: count(Math.min(ROWS_AT_A_TIME, shown.length - most)) })}
				</button>
			)}
		</>
	);
}

export function Id({ id }: { id: string | null }) {
	const { t } = useTexts();
	return id === null ? <>{t('audit.unknown')}</> : <code>{id}</code>;
}
