// Elements, made and put in place.

/** An element: `on…` properties listen, `class` and the like are attributes, the rest is its content. */
export function element(tag, attributes = {}, ...children) {
	const made = document.createElement(tag);
	for (const [name, value] of Object.entries(attributes)) {
		if (name.startsWith('on')) made.addEventListener(name.slice(2), value);
		else if (value === true) made.setAttribute(name, '');
		else if (value !== false && value != null) made.setAttribute(name, value);
	}
	made.append(...children.filter((child) => child != null));
	return made;
}

/** Show these in the page's root, in place of what is there. */
export function show(...elements) {
	document.getElementById('app').replaceChildren(...elements);
}
