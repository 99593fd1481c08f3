// Begins each picture at what is wrong.
for (const chart of document.querySelectorAll(".chart")) {
  const bad = chart.querySelector(".bad");
  if (bad) chart.scrollLeft = bad.offsetLeft - 300;
}
// Tells everything about the box that is pointed at, tapped or reached by the keyboard.
const detail = document.getElementById("detail");
for (const kind of ["pointerover", "click", "focusin"]) {
  document.addEventListener(kind, event => {
    const box = event.target.closest("[data-detail]");
    if (box) { detail.textContent = box.dataset.detail; detail.hidden = false; }
    else if (kind === "click" && !detail.contains(event.target)) detail.hidden = true;
  });
}
