/** A table that a narrow screen shows as a list of cards, or else scrolls inside its own frame. */
import type { ComponentChildren } from 'preact';

export interface Column<Row> {
	head: string;
	cell: (row: Row) => ComponentChildren;
	isNumber?: boolean;
	/** Names its row. */
	isHeader?: boolean;
}

interface Props<Row> {
	caption: string;
	isCaptionHidden?: boolean;
	columns: Column<Row>[];
	rows: Row[];
	keyOf: (row: Row) => string;
	narrow: 'cards' | 'scroll';
}

export function Table<Row>(props: Props<Row>) {
	const { caption, columns, rows, keyOf, narrow } = props;
	const frame =
		narrow === 'scroll' ? { role: 'region' as const, 'aria-label': caption, tabIndex: 0 } : {};
	// The roles are said, since a browser forgets them where the style turns rows into cards.
	return (
		<div class="frame" {...frame}>
			<table role="table" class={narrow}>
				<caption class={props.isCaptionHidden ? 'unseen' : ''}>{caption}</caption>
				<thead role="rowgroup">
					<tr role="row">
						{columns.map(({ head, isNumber }) => (
							<th key={head} role="columnheader" scope="col" class={isNumber ? 'number' : ''}>
								{head}
							</th>
						))}
					</tr>
				</thead>
				<tbody role="rowgroup">
					{rows.map((row) => (
						<tr key={keyOf(row)} role="row">
							{columns.map((column) => (
								<Cell key={column.head} column={column} row={row} />
							))}
						</tr>
					))}
				</tbody>
			</table>
		</div>
	);
}

function Cell<Row>({ column, row }: { column: Column<Row>; row: Row }) {
	const content = <div>{column.cell(row)}</div>;
	const attributes = { class: column.isNumber ? 'number' : '', 'data-label': column.head };
	if (!column.isHeader) {
		return (
			<td role="cell" {...attributes}>
				{content}
			</td>
		);
	}
	return (
		<th role="rowheader" scope="row" {...attributes}>
			{content}
		</th>
	);
}
