// Before anything is drawn: the chosen colours, and that scripts run.
document.documentElement.classList.add("scripted");
try {
  document.documentElement.dataset.colours = localStorage.getItem("colours") || "";
} catch { /* no storage: as the system */ }
