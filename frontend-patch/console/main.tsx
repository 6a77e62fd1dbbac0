import { render } from 'preact';
import { Api } from './api';
import { App } from './app';
import { stored } from './texts';

// The page stands beside the endpoints. The origin keeps the token at home: a path may begin with two slashes.
const base = location.origin + location.pathname.replace(/\/console\/?$/, '');
const home = base.replace(/\/api\/v1\/billing\/.*$/, '/');
const token = () => stored('token');
const place = document.getElementById('console');

if (place) render(<App api={new Api(base, token)} home={home} hasToken={() => !!token()} />, place);
