/** The whole page: who looks at it, the report, an audit, held payments. */
import { useEffect, useMemo, useState } from 'preact/hooks';
import { ApiError, type Api, type Report } from './api';
import { AuditSection, useAudit } from './audit';
import { HeldPayments } from './held';
import { LastPass, LostWebhooks, OpenTopups, Section, SPANS } from './report';
import {
	chooseLanguage,
	LANGUAGES,
	preferredLanguage,
	TextsContext,
	textsOf,
	useTexts,
	type Language
} from './texts';

interface Props {
	api: Api;
	/** Where the app's own pages are. */
	home: string;
	hasToken: () => boolean;
}

interface Loaded {
	state: 'loaded';
	report: Report;
	/** The days that were asked for. */
	span: number;
	at: number;
}

/** What was loaded before stays in view, marked as such, while the next report is on its way; a failure clears it. */
type Loading =
	{ state: 'loading'; before: Loaded | null } | Loaded | { state: 'failed'; error: ApiError };

export function App(props: Props) {
	const [language, setLanguage] = useState(preferredLanguage);
	const texts = useMemo(() => textsOf(language), [language]);
	useEffect(() => {
		document.documentElement.lang = language;
		document.title = texts.t('title');
	}, [language]);
	const choose = (wanted: Language) => {
		chooseLanguage(wanted);
		setLanguage(wanted);
	};
	return (
		<TextsContext.Provider value={texts}>
			<Session {...props} onLanguage={choose} />
		</TextsContext.Provider>
	);
}

type SignIn = 'signed in' | 'no token' | 'refused';

function Session(props: Props & { onLanguage: (language: Language) => void }) {
	const { hasToken, home } = props;
	const [signIn, setSignIn] = useState<SignIn>(hasToken() ? 'signed in' : 'no token');
	const { t } = useTexts();
	if (signIn === 'signed in') {
		return (
			<Console
				{...props}
				onSignedOut={() => {
					setSignIn(hasToken() ? 'refused' : 'no token');
				}}
			/>
		);
	}
	return (
		<>
			<Header onLanguage={props.onLanguage} />
			<main>
				<section role="alert" aria-labelledby="signin-title">
					<h2 id="signin-title">{t('signin.title')}</h2>
					<p>{t(signIn === 'refused' ? 'signin.refused' : 'signin.no_token')}</p>
					<p>
						<a href={home}>{t('signin.link')}</a>
					</p>
					<p>{t('signin.after')}</p>
					<button
						onClick={() => {
							setSignIn(hasToken() ? 'signed in' : 'no token');
						}}
					>
						{t('retry')}
					</button>
				</section>
			</main>
		</>
	);
}

type ConsoleProps = Props & {
	onLanguage: (language: Language) => void;
	onSignedOut: (error: ApiError) => void;
};

function Console({ api, onLanguage, onSignedOut }: ConsoleProps) {
	const [span, setSpan] = useState<number>(30);
	const [requests, setRequests] = useState(0);
	const [loading, setLoading] = useState<Loading>({ state: 'loading', before: null });
	const [mode, setMode] = useState<Report['mode'] | null>(null);
	const { audit, run, stop } = useAudit(api, onSignedOut);
	const { t } = useTexts();

	useEffect(() => {
		const leaving = new AbortController();
		setLoading((now) => ({ state: 'loading', before: loadedIn(now) }));
		api
			.report(span, leaving.signal)
			.then((report) => {
				if (leaving.signal.aborted) return;
				setMode(report.mode);
				setLoading({ state: 'loaded', report, span, at: Date.now() });
			})
			.catch((error: unknown) => {
				if (leaving.signal.aborted) return;
				if (!(error instanceof ApiError)) throw error;
				if (error.isSignedOut) onSignedOut(error);
				setLoading({ state: 'failed', error });
			});
		return () => {
			leaving.abort();
		};
	}, [span, requests]);

	const shown = loadedIn(loading);
	const isBusy = loading.state === 'loading';
	return (
		<>
			<Header report={shown?.report ?? null} onLanguage={onLanguage} />
			<main>
				{mode === 'observe' && <p class="notice">{t('observe.notice')}</p>}
				<LoadingState
					loading={loading}
					onRefresh={() => {
						setRequests(requests + 1);
					}}
				/>
				<Section id="lost" title={t('lost.title')} lead={t('lost.lead')}>
					<SpanSelector span={span} onChange={setSpan} />
					{shown && (
						<div aria-busy={isBusy}>
							<LostWebhooks report={shown.report} span={shown.span} />
						</div>
					)}
				</Section>
				{shown && (
					<div class="beside" aria-busy={isBusy}>
						<OpenTopups report={shown.report} />
						<LastPass pass={shown.report.last_pass} />
					</div>
				)}
				<AuditSection
					audit={audit}
					onRun={(since, until) => void run(since, until)}
					onStop={stop}
				/>
				<HeldPayments api={api} audit={audit} mode={mode} onSignedOut={onSignedOut} />
			</main>
		</>
	);
}

function loadedIn(loading: Loading): Loaded | null {
	if (loading.state === 'loading') return loading.before;
	return loading.state === 'loaded' ? loading : null;
}

interface HeaderProps {
	report?: Report | null;
	onLanguage: (language: Language) => void;
}

function Header({ report, onLanguage }: HeaderProps) {
	const { t, language } = useTexts();
	return (
		<header>
			<div>
				<h1>{t('title')}</h1>
				{report && (
					<p class="muted">
						<span class={`badge ${report.mode}`}>{t(`mode.${report.mode}`)}</span>{' '}
						{t('version', { version: report.version })} ·{' '}
						{t('plugins', { plugins: report.plugins.join(', ') || t('none') })}
					</p>
				)}
			</div>
			<div role="group" aria-label={t('language')} class="choices">
				{(Object.keys(LANGUAGES) as Language[]).map((code) => (
					<button
						key={code}
						lang={code}
						aria-pressed={code === language}
						onClick={() => {
							onLanguage(code);
						}}
					>
						{LANGUAGES[code]}
					</button>
				))}
			</div>
		</header>
	);
}

function LoadingState({ loading, onRefresh }: { loading: Loading; onRefresh: () => void }) {
	const { t, moment, problem } = useTexts();
	return (
		<div class="loading">
			<div role="status">
				{loading.state === 'loading' && <p class="muted">{t('loading')}</p>}
				{loading.state === 'loaded' && (
					<p class="muted">{t('loaded_at', { moment: moment(loading.at) })}</p>
				)}
				{loading.state === 'failed' && (
					<p class="problem">
						{t('report.failed')} {problem(loading.error)}
					</p>
				)}
			</div>
			<button onClick={onRefresh}>{t('refresh')}</button>
		</div>
	);
}

function SpanSelector({ span, onChange }: { span: number; onChange: (span: number) => void }) {
	const { t } = useTexts();
	return (
		<div role="group" aria-label={t('lost.days')} class="choices">
			<span aria-hidden="true">{t('lost.days')}</span>
			{SPANS.map((days) => (
				<button
					key={days}
					aria-pressed={days === span}
					onClick={() => {
						onChange(days);
					}}
				>
					{days}
				</button>
			))}
		</div>
	);
}
