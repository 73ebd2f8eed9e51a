// Presses the page's buttons by keyboard, except while text is typed. Sliders and lists keep their arrow keys.
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const id = { ArrowRight: "browse-next", j: "browse-next", ArrowLeft: "browse-previous", k: "browse-previous",
    x: "browse-mark" }[event.key];
  const field = event.target.closest("input, textarea, select, [contenteditable], [role=listbox], [role=tab]");
  // Gradio's lists stay open when the focus goes on: its handler of the key comes after that of the lost focus.
  if (field?.getAttribute("role") === "combobox" && ["Tab", "Escape"].includes(event.key)) {
    if (event.key === "Escape") field.blur();
    setTimeout(() => field.dispatchEvent(new FocusEvent("blur")), 50);
  }
  const arrow = event.key.startsWith("Arrow");
  const free = !field || field.type === "checkbox" || (!arrow && (field.type === "range" || field.getAttribute("role") === "tab"));
  if (!id || !free) return;
  const button = document.getElementById(id);
  if (!button || button.offsetParent === null || button.disabled) return;
  event.preventDefault();
  button.click();
});
