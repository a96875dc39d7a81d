"""The Share box: the address of exactly this view, to copy or to embed.

The browser's address bar is the truth about the view (widgets write their values there themselves), so the box reads it
there, at the moment of copying; the server would know a value one step late.
"""

from __future__ import annotations

from collections.abc import Mapping

import streamlit as st

__all__ = ["show"]

_CSS = """
.box { font-family: var(--st-font); color: var(--st-text-color); display: grid; gap: 0.5rem; font-size: 0.875rem; }
label { display: grid; gap: 0.25rem; }
.row { display: flex; gap: 0.5rem; }
input { flex: 1; min-width: 0; padding: 0.4rem 0.6rem; font: inherit; font-size: 0.8125rem;
  color: var(--st-text-color); background: var(--st-secondary-background-color);
  border: 1px solid var(--st-border-color); border-radius: 0.5rem; }
button { font: inherit; padding: 0.4rem 0.8rem; cursor: pointer; color: var(--st-text-color);
  background: transparent; border: 1px solid var(--st-border-color); border-radius: 0.5rem; white-space: nowrap; }
button:hover { border-color: var(--st-primary-color); color: var(--st-primary-color); }
input:focus-visible, button:focus-visible { outline: 2px solid var(--st-primary-color); outline-offset: 1px; }
"""

_HTML = """
<div class="box">
  <label>Link to this view
    <span class="row"><input id="link" readonly><button type="button" data-of="link">Copy</button></span>
  </label>
  <label>To embed it in a page
    <span class="row"><input id="embed" readonly><button type="button" data-of="embed">Copy</button></span>
  </label>
</div>
"""

_JS = """
function address(extra) {
  const url = new URL(window.location.href);
  for (const [name, value] of Object.entries(extra)) url.searchParams.set(name, value);
  return url;
}

function embedding(url) {
  url.searchParams.set("embed", "true");
  const src = url.href.replaceAll("&", "&amp;").replaceAll('"', "%22");
  return `<iframe src="${src}" width="100%" height="800" style="border:0" title="mnistlr"></iframe>`;
}

async function copy(field, button) {
  field.select();
  try {
    await navigator.clipboard.writeText(field.value);
  } catch {  // no permission, or no https: the older way still works
    document.execCommand("copy");
  }
  button.textContent = "Copied";
  setTimeout(() => { button.textContent = "Copy"; }, 1500);
}

export default function ({ parentElement, data }) {
  const field = name => parentElement.querySelector(`#${name}`);
  const refresh = () => {
    field("link").value = address(data.extra).href;
    field("embed").value = embedding(address(data.extra));
  };
  refresh();
  for (const button of parentElement.querySelectorAll("button")) {
    button.onclick = () => { refresh(); copy(field(button.dataset.of), button); };
  }
  const timer = setInterval(refresh, 500);
  return () => clearInterval(timer);
}
"""

_box = st.components.v2.component("mnistlr_share", html=_HTML, css=_CSS, js=_JS)


def show(extra: Mapping[str, str] | None = None) -> None:
    """Draw the button that opens the box.

    extra: what the link carries besides, for a server that doesn't have what this one shows.
    """
    with st.popover("Share", icon=":material/share:", type="tertiary"):
        _box(key="share", data={"extra": dict(extra or {})})
