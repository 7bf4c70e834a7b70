// The pages of docs/ as they are read in a browser, beside the page of the demo: an own bot's first steps need no network.

import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';

import MarkdownIt from 'markdown-it';

const DOCS = fileURLToPath(new URL('../docs', import.meta.url));
const PARTS = ['howto', 'reference', 'glossary.md', 'spec/direct-line-3.0.md', 'spec/bot-side.md'];

const STYLE = `
:root { color-scheme: light dark; --ink: #20251f; --paper: #f6f4ef; --quiet: #5d645b; --accent: #1d6457; --code: #efece4; --line: #ddd8cc }
@media (prefers-color-scheme: dark) { :root { --ink: #e8eae4; --paper: #141715; --quiet: #9ea69e; --accent: #79c9b8; --code: #282d2a; --line: #343a37 } }
body { max-width: 46rem; margin: 0 auto; padding: 2rem 1.25rem 6rem; background: var(--paper); color: var(--ink); font: 1.0625rem/1.6 system-ui, sans-serif }
a { color: var(--accent) }
h1, h2, h3 { line-height: 1.25; text-wrap: balance }
h2 { margin-top: 2.5em }
code, pre { border-radius: 0.4em; background: var(--code); font: 0.9em/1.5 ui-monospace, 'DejaVu Sans Mono', monospace }
code { padding: 0.1em 0.3em; overflow-wrap: anywhere }
pre { padding: 1em; overflow-x: auto }
pre code { padding: 0; overflow-wrap: normal }
img { max-width: 100% }
table { display: block; overflow-x: auto; border-collapse: collapse; font-size: 0.95em }
th, td { padding: 0.4em 0.75em 0.4em 0; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top }
nav { color: var(--quiet) }`;

export function guide() {
  return {
    name: 'guide',
    generateBundle() {
      const pages = PARTS.flatMap(part => (part.endsWith('.md') ? [part] : markdownIn(part)));
      for (const page of pages) {
        this.emitFile({ type: 'asset', fileName: `guide/${html(page)}`, source: rendered(page, new Set(pages)) });
      }
      for (const image of readdirSync(join(DOCS, 'images'))) {
        this.emitFile({ type: 'asset', fileName: `guide/images/${image}`, source: readFileSync(join(DOCS, 'images', image)) });
      }
    }
  };
}

const markdownIn = part =>
  readdirSync(join(DOCS, part))
    .filter(name => name.endsWith('.md'))
    .map(name => `${part}/${name}`);

const html = page => page.replace(/\.md$/u, '.html');

function rendered(page, pages) {
  const markdown = new MarkdownIt();
  const text = readFileSync(join(DOCS, page), 'utf8');
  const tokens = markdown.parse(text, {});
  tokens.forEach((token, at) => {
    if (token.type === 'heading_open') {
      token.attrSet('id', anchor(tokens[at + 1].content));
    }
    lead(token.children ?? [], page, pages);
  });
  const title = tokens.find(({ type }) => type === 'inline').content.replace(/`/gu, '');
  const home = relative(dirname(`guide/${page}`), '.') || '.';
  return `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<link rel="icon" href="data:,">
<title>${markdown.utils.escapeHtml(title)} – Landline</title>
<style>${STYLE}</style>
<nav><a href="${home}/">The demo</a></nav>
<main>
${markdown.renderer.render(tokens, markdown.options, {})}</main>
</html>
`;
}

// As GitHub makes it, and tests/docs holds links to it.
const anchor = heading => heading.toLowerCase().replace(/[^\p{L}\p{N}_\- ]/gu, '').replaceAll(' ', '-');

// Links from page to page; what is not here, such as a source file, is a word like others.
function lead(children, page, pages) {
  for (const [at, link] of children.entries()) {
    if (link.type !== 'link_open' || /^(#|[a-z]+:)/u.test(link.attrGet('href'))) {
      continue;
    }
    const [path, place] = link.attrGet('href').split('#');
    const there = join(dirname(page), path);
    if (pages.has(there)) {
      link.attrSet('href', html(path) + (place ? `#${place}` : ''));
    } else {
      const end = children.slice(at).find(({ type }) => type === 'link_close');
      link.tag = 'span';
      link.attrs = null;
      end.tag = 'span';
    }
  }
}
