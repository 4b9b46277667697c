/* Tables that scroll sideways are reached with the Tab key, and say what they are. */
function reachTables() {
  document.querySelectorAll(".md-typeset__scrollwrap").forEach((wrap) => {
    if (wrap.scrollWidth <= wrap.clientWidth) {
      ["tabindex", "role", "aria-label"].forEach((name) => wrap.removeAttribute(name));
      return;
    }
    wrap.tabIndex = 0;
    wrap.setAttribute("role", "group");
    wrap.setAttribute("aria-label", "A table that scrolls sideways");
  });
}
addEventListener("load", reachTables);
addEventListener("resize", reachTables);
