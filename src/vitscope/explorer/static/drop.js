// A picture that is dropped, pasted or chosen goes to the explorer, and its page opens.

import { post, run } from "./frame.js";

const form = document.getElementById("drop");
const text = document.getElementById("drop-text");

async function take(file) {
  text.textContent = `looking at ${file.name}…`;
  try {
    const { key } = await post("/upload", file, { "x-file-name": encodeURIComponent(file.name) });
    location.href = `/${run}/upload/${key}${location.search}`;
  } catch (error) {
    text.textContent = `${file.name} cannot be used: ${error.message}`;
  }
}

export function takeDrops() {
  form.querySelector("input").addEventListener("change", (event) => { if (event.target.files[0]) take(event.target.files[0]); });
  form.addEventListener("submit", (event) => event.preventDefault());
  document.addEventListener("dragover", (event) => { event.preventDefault(); form.classList.add("over"); });
  document.addEventListener("dragleave", (event) => { if (event.relatedTarget === null) form.classList.remove("over"); });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    form.classList.remove("over");
    if (event.dataTransfer.files[0]) take(event.dataTransfer.files[0]);
  });
  document.addEventListener("paste", (event) => { if (event.clipboardData.files[0]) take(event.clipboardData.files[0]); });
}
