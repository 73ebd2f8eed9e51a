// Click a picture to enlarge it; the page is complete without this.
const lens = document.getElementById("lens");
document.addEventListener("click", (event) => {
  const picture = event.target;
  if (picture.matches("img.zoom")) {
    lens.querySelector("img").src = picture.getAttribute("src");
    lens.querySelector("img").alt = picture.alt;
    lens.querySelector("p").textContent = picture.alt;
    lens.showModal();
  } else if (picture === lens || picture.parentElement === lens) {
    lens.close();
  }
});
