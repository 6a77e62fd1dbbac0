/** What the report says: lost webhooks, open top-ups, the last pass of the sweep. */
import type { ComponentChildren } from 'preact';
import { WAYS, type Pass, type Report, type Sum, type Way } from './api';
import { Chart } from './chart';
import { Table } from './table';
import { useTexts } from './texts';

export const SPANS = [7, 30, 90] as const;
const PASS_COUNTS = [
	'listed',
	'credited',
	'canceled',
	'held',
	'failed',
	'others',
	'unreadable'
] as const;

export function LostWebhooks({ report, span }: { report: Report; span: number }) {
	const { t, count, money, date } = useTexts();
	const days = [...report.days].sort((a, b) => a.date.localeCompare(b.date));
	const sums = WAYS.map((way) => ({ way, ...sumOf(report.days.map((day) => day[way])) }));
	const total = sumOf(sums);
	if (total.count === 0) return <p class="empty">{t('lost.none')}</p>;
	const rows: ({ way: Way | null } & Sum)[] = [...sums, { way: null, ...total }];
	return (
		<>
			<Chart days={days} span={span} />
			<Figures report={report} total={total.count} webhooks={sums[0]?.count ?? 0} />
			<Table
				caption={t('lost.by_way')}
				narrow="cards"
				keyOf={({ way }) => way ?? ''}
				rows={rows}
				columns={[
					{
						head: t('lost.way'),
						isHeader: true,
						cell: ({ way }) => (way ? <WayName way={way} /> : t('lost.total'))
					},
					{ head: t('lost.topups'), isNumber: true, cell: (row) => count(row.count) },
					{ head: t('lost.amount'), isNumber: true, cell: (row) => money(row.kopeks) }
				]}
			/>
			<details>
				<summary>{t('chart.table')}</summary>
				<Table
					caption={t('chart.title')}
					isCaptionHidden
					narrow="scroll"
					keyOf={(day) => day.date}
					rows={[...days].reverse()}
					columns={[
						{ head: t('chart.day'), isHeader: true, cell: (day) => date(day.date) },
						...WAYS.map((way) => ({
							head: t(`way.${way}`),
							isNumber: true,
							cell: (day: Report['days'][0]) => <CountAndMoney {...day[way]} />
						}))
					]}
				/>
			</details>
		</>
	);
}

function WayName({ way }: { way: Way }) {
	const { t } = useTexts();
	return (
		<>
			<i class={`swatch way-${way}`} /> {t(`way.${way}`)}{' '}
			<small class="muted">{t(`way.${way}.meaning`)}</small>
		</>
	);
}

function CountAndMoney({ count: of, kopeks }: Sum) {
	const { count, money } = useTexts();
	if (!of) return <span class="muted">{count(0)}</span>;
	return (
		<>
			{count(of)}
			<br />
			<small class="muted">{money(kopeks)}</small>
		</>
	);
}

function Figures(props: { report: Report; total: number; webhooks: number }) {
	const { t, count, share, duration } = useTexts();
	const { total, webhooks } = props;
	const { median, p95 } = props.report.delay_seconds;
	const delay = (seconds: number | null) =>
		seconds === null ? t('lost.delay.none') : duration(seconds);
	const ours = total - webhooks;
	return (
		<dl class="figures">
			<Figure
				name={t('lost.share')}
				value={share(ours, total)}
				note={t('lost.share.of', { count: count(ours), total: count(total) })}
			/>
			<Figure name={t('lost.median')} value={delay(median)} note={t('lost.delay.of')} />
			<Figure name={t('lost.p95')} value={delay(p95)} note={t('lost.delay.of')} />
		</dl>
	);
}

function Figure({ name, value, note }: { name: string; value: string; note: string }) {
	return (
		<div>
			<dt>{name}</dt>
			<dd>
				<strong>{value}</strong>
				<small class="muted">{note}</small>
			</dd>
		</div>
	);
}

export function OpenTopups({ report }: { report: Report }) {
	const { t, count, duration } = useTexts();
	const open = [...report.open].sort((a, b) => a.older_than - b.older_than);
	return (
		<Section id="open" title={t('open.title')} lead={t('open.lead')}>
			{open.some((row) => row.count) ? (
				<Table
					caption={t('open.title')}
					isCaptionHidden
					narrow="scroll"
					keyOf={(row) => String(row.older_than)}
					rows={open}
					columns={[
						{ head: t('open.age'), isHeader: true, cell: (row) => duration(row.older_than) },
						{ head: t('open.topups'), isNumber: true, cell: (row) => count(row.count) }
					]}
				/>
			) : (
				<p class="empty">{t('open.none')}</p>
			)}
		</Section>
	);
}

export function LastPass({ pass }: { pass: Pass | null }) {
	const { t, count, moment, duration } = useTexts();
	if (!pass) {
		return (
			<Section id="pass" title={t('pass.title')}>
				<p class="empty">{t('pass.none')}</p>
			</Section>
		);
	}
	return (
		<Section id="pass" title={t('pass.title')} lead={t('pass.lead')}>
			<Facts
				facts={[
					[t('pass.began_at'), moment(1000 * pass.began_at)],
					[t('pass.seconds'), duration(pass.seconds)],
					...PASS_COUNTS.map((name): [string, string] => [t(`pass.${name}`), count(pass[name])])
				]}
			/>
		</Section>
	);
}

export function Facts({ facts }: { facts: [string, ComponentChildren][] }) {
	return (
		<dl class="facts">
			{facts.map(([name, value]) => (
				<div key={name}>
					<dt>{name}</dt>
					<dd>{value}</dd>
				</div>
			))}
		</dl>
	);
}

interface SectionProps {
	id: string;
	title: string;
	lead?: string;
	children: ComponentChildren;
}

export function Section({ id, title, lead, children }: SectionProps) {
	return (
		<section aria-labelledby={`${id}-title`}>
			<h2 id={`${id}-title`}>{title}</h2>
			{lead && <p class="lead">{lead}</p>}
			{children}
		</section>
	);
}

const sumOf = (sums: Sum[]): Sum => ({
	count: sums.reduce((total, { count }) => total + count, 0),
	kopeks: sums.reduce((total, { kopeks }) => total + kopeks, 0)
});
