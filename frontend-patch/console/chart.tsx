/** Credited top-ups by day: a stacked bar for each, and the numbers of the one pointed at. */
import { useState } from 'preact/hooks';
import { WAYS, type Day } from './api';
import { daysBetween } from './format';
import { useTexts } from './texts';

const BAR_WIDTH = 0.76; // of a day
const MOST_LABELS = 6;

export function Chart({ days, span }: { days: Day[]; span: number }) {
	const { t, count, date, shortDate } = useTexts();
	const [chosen, setChosen] = useState<Day | null>(null);
	const last = days[days.length - 1];
	const first = days[0];
	if (!first || !last) return null;
	const length = Math.max(span, daysBetween(first.date, last.date) + 1);
	const placeOf = (day: Day) => length - 1 - daysBetween(day.date, last.date);
	const ticks = ticksUpTo(Math.max(...days.map(totalOf)));
	const top = ticks[ticks.length - 1] ?? 1;
	const every = Math.ceil(days.length / MOST_LABELS);
	const labelled = days.filter((_, index) => (days.length - 1 - index) % every === 0);
	return (
		<figure class="chart">
			<figcaption>{t('chart.title')}</figcaption>
			<div class="plot" aria-hidden="true">
				{ticks.map((tick) => (
					<span key={tick} class="tick" style={{ bottom: `${(100 * tick) / top}%` }}>
						{count(tick)}
					</span>
				))}
			</div>
			<svg
				role="img"
				aria-label={t('chart.label', { since: date(first.date), until: date(last.date) })}
				viewBox={`0 0 ${length} ${top}`}
				preserveAspectRatio="none"
				onPointerLeave={() => {
					setChosen(null);
				}}
			>
				{ticks.map((tick) => (
					<line key={tick} class="grid" x1={0} x2={length} y1={top - tick} y2={top - tick} />
				))}
				{days.map((day) => (
					<Bar
						key={day.date}
						day={day}
						place={placeOf(day)}
						top={top}
						isChosen={day === chosen}
						onChoose={setChosen}
					/>
				))}
			</svg>
			<div class="dates" aria-hidden="true">
				{labelled.map((day) => (
					<span key={day.date} style={{ left: `${(100 * (placeOf(day) + 0.5)) / length}%` }}>
						{shortDate(day.date)}
					</span>
				))}
			</div>
			<p class="readout" aria-hidden="true">
				{chosen ? <Readout day={chosen} /> : t('chart.hint')}
			</p>
		</figure>
	);
}

interface BarProps {
	day: Day;
	place: number;
	top: number;
	isChosen: boolean;
	onChoose: (day: Day) => void;
}

function Bar({ day, place, top, isChosen, onChoose }: BarProps) {
	let below = 0;
	return (
		<g
			class={isChosen ? 'chosen' : ''}
			onPointerEnter={() => {
				onChoose(day);
			}}
		>
			<rect class="column" x={place} width={1} y={0} height={top} />
			{WAYS.map((way) => {
				below += day[way].count;
				return (
					<rect
						key={way}
						class={`way-${way}`}
						x={place + (1 - BAR_WIDTH) / 2}
						width={BAR_WIDTH}
						y={top - below}
						height={day[way].count}
					/>
				);
			})}
		</g>
	);
}

function Readout({ day }: { day: Day }) {
	const { t, count, money, date } = useTexts();
	const credited = WAYS.filter((way) => day[way].count);
	return (
		<>
			<strong>{date(day.date)}</strong>
			{credited.map((way) => (
				<span key={way}>
					<i class={`swatch way-${way}`} /> {t(`way.${way}`)}: {count(day[way].count)} ·{' '}
					{money(day[way].kopeks)}
				</span>
			))}
			{credited.length === 0 && <span>{count(0)}</span>}
		</>
	);
}

const totalOf = (day: Day): number => WAYS.reduce((total, way) => total + day[way].count, 0);

/** Round whole numbers from nought to `most` or above: at most five of them. */
export function ticksUpTo(most: number): number[] {
	const rough = Math.max(1, most) / 4;
	const power = 10 ** Math.floor(Math.log10(rough));
	const step = Math.max(1, [1, 2, 5, 10].map((n) => n * power).find((n) => n >= rough) ?? 1);
	const steps = Math.max(1, Math.ceil(most / step));
	return Array.from({ length: steps + 1 }, (_, index) => Math.round(index * step));
}
