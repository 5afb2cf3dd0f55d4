// The slider: two pictures of a group over each other, divided at a line that the pointer or the range input moves.
document.querySelectorAll(".slider").forEach((slider) => {
  const [under, over] = slider.querySelectorAll(".stage img");
  const [left, right] = slider.querySelectorAll("select");
  const range = slider.querySelector("input");
  const stage = slider.querySelector(".stage");
  const pictures = slider.parentElement.querySelectorAll(".strip img");
  const show = () => {
    under.src = pictures[left.value].src;
    over.src = pictures[right.value].src;
    stage.style.setProperty("--at", range.value + "%");
  };
  const follow = (event) => {
    const box = stage.getBoundingClientRect();
    range.value = Math.min(100, Math.max(0, (100 * (event.clientX - box.left)) / box.width));
    show();
  };
  stage.addEventListener("pointerdown", (event) => { stage.setPointerCapture(event.pointerId); follow(event); });
  stage.addEventListener("pointermove", (event) => { if (event.buttons) follow(event); });
  [left, right, range].forEach((control) => control.addEventListener("input", show));
  slider.hidden = false;
  show();
});
