"use strict";
const box = document.querySelector("dialog");
const shots = [...document.querySelectorAll(".shot")];
let now = 0;
function show(number) {
  now = (number + shots.length) % shots.length;
  const words = document.createElement("p");
  words.textContent = shots[now].querySelector("figcaption").innerText;
  box.replaceChildren(shots[now].querySelector(".stack").cloneNode(true), words);
  if (!box.open) box.showModal();
}
shots.forEach((shot, number) => shot.querySelector(".view").addEventListener("click", () => show(number)));
box.addEventListener("click", () => box.close());
box.addEventListener("keydown", (event) => {
  if (event.key === "ArrowRight") show(now + 1);
  if (event.key === "ArrowLeft") show(now - 1);
});
document.documentElement.dataset.script = "ready";
