// Follow the theme of the Airflow page around this one; on its own, follow the system.
(function () {
  "use strict";
  const html = document.documentElement;
  const system = window.matchMedia("(prefers-color-scheme: dark)");
  let outer = null;
  try {
    if (window.parent !== window) outer = window.parent.document.documentElement;
  } catch {
    outer = null;
  }
  function follow() {
    const dark = outer ? outer.classList.contains("dark") : system.matches;
    html.dataset.theme = dark ? "dark" : "light";
    document.dispatchEvent(new CustomEvent("theme"));
  }
  follow();
  system.addEventListener("change", follow);
  if (outer) new MutationObserver(follow).observe(outer, { attributes: true, attributeFilter: ["class"] });
})();
