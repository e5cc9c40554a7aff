// Review of held objects: pictures are fetched by POST and drawn on a canvas, rectangles are drawn or typed.
(function () {
  "use strict";

  const review = document.getElementById("review");
  if (!review) return;
  const form = document.getElementById("decide");
  const canvas = document.getElementById("picture");
  const status = document.getElementById("status");
  const objects = document.getElementById("object");
  const size = { columns: Number(form.dataset.columns), rows: Number(form.dataset.rows) };
  let bitmap = null;
  let rectangles = [];
  let drawing = null;
  let latest = 0;

  const input = (id) => document.getElementById(id);

  async function post(path, fields) {
    const [linkId, number] = objects.value.split(":");
    const body = new URLSearchParams({ token: review.dataset.token, link_id: linkId, number, ...fields });
    const answer = await fetch(review.dataset.base + path, { method: "POST", body });
    if (answer.ok) return answer;
    const problem = await answer.json().catch(() => ({ detail: "The server did not answer." }));
    throw new Error(typeof problem.detail === "string" ? problem.detail : "The request was refused.");
  }

  async function showPicture() {
    const [projection, whole] = input("projection") ? input("projection").value.split(":") : [""];
    const fields = { frame: Number(input("frame").value) - 1, projection, whole_group: Boolean(whole) };
    if (input("center") && input("center").value && input("width").value) {
      fields.center = input("center").value;
      fields.width = input("width").value;
    }
    const mine = ++latest;
    status.textContent = "Loading …";
    try {
      const answer = await post("/picture", fields);
      const picture = await createImageBitmap(await answer.blob());
      if (mine !== latest) return;
      bitmap = picture;
      const shown = answer.headers.get("x-frames");
      const total = answer.headers.get("x-total");
      const count = answer.headers.get("x-objects");
      if (projection) {
        status.textContent = `${projection} of ${shown} of ${total} frames, ${count} object${count === "1" ? "" : "s"}`;
      } else {
        status.textContent = `${fields.frame + 1} of ${total}`;
        input("frame").max = total;
      }
      canvas.width = picture.width;
      canvas.height = picture.height;
      // Small pictures are enlarged, and none is higher than the window.
      const widest = (75 * picture.width) / picture.height;
      canvas.style.width = `min(${Math.max(picture.width, 640)}px, ${widest}vh)`;
      draw();
    } catch (error) {
      if (mine === latest) status.textContent = error.message;
    }
  }

  async function showText(clear) {
    status.textContent = "Loading …";
    try {
      const answer = await post("/text", { clear });
      const parsed = new DOMParser().parseFromString(await answer.text(), "text/html");
      input("text").replaceChildren(...parsed.body.childNodes);
      status.textContent = "";
    } catch (error) {
      status.textContent = error.message;
    }
  }

  // Rectangles are blanked, or may show text; under an allowance nothing is blanked.

  const action = () => form.querySelector("[name=action]:checked").value;
  const isText = (rectangle) => Boolean(rectangle.text) || action() === "allow";

  function draw() {
    if (!canvas) return;
    const context = canvas.getContext("2d");
    context.clearRect(0, 0, canvas.width, canvas.height);
    if (bitmap) context.drawImage(bitmap, 0, 0);
    const scale = size.columns ? canvas.width / size.columns : 1;
    context.lineWidth = Math.max(1, canvas.width / 400);
    for (const each of drawing ? [...rectangles, drawing] : rectangles) {
      const at = [each.left, each.top, each.right - each.left, each.bottom - each.top].map((value) => value * scale);
      context.fillStyle = "rgb(0 0 0 / 60%)";
      context.strokeStyle = "#ffb000";
      context.setLineDash(isText(each) ? [4 * context.lineWidth, 2 * context.lineWidth] : []);
      if (!isText(each)) context.fillRect(...at);
      context.strokeRect(...at);
    }
  }

  function list() {
    const rows = input("rectangles");
    if (!rows) return;
    rows.replaceChildren(
      ...rectangles.map((rectangle, index) => {
        const row = document.createElement("li");
        for (const side of ["left", "top", "right", "bottom"]) {
          const label = document.createElement("label");
          const field = document.createElement("input");
          field.type = "number";
          field.min = 0;
          field.max = side === "left" || side === "right" ? size.columns : size.rows;
          field.value = rectangle[side];
          field.addEventListener("input", () => {
            rectangle[side] = Number(field.value);
            save();
          });
          label.append(side + " ", field);
          row.append(label, " ");
        }
        const kind = document.createElement("select");
        kind.setAttribute("aria-label", `Rectangle ${index + 1}`);
        kind.append(new Option("is blanked", ""), new Option("may show text", "text"));
        kind.value = isText(rectangle) ? "text" : "";
        kind.disabled = action() === "allow";
        kind.addEventListener("change", () => {
          rectangle.text = Boolean(kind.value);
          save();
        });
        row.append(kind, " ");
        const remove = document.createElement("button");
        remove.type = "button";
        remove.textContent = "Remove";
        remove.setAttribute("aria-label", `Remove rectangle ${index + 1}`);
        remove.addEventListener("click", () => {
          rectangles.splice(index, 1);
          changed();
          input("add").focus();
        });
        row.append(remove);
        return row;
      }),
    );
  }

  function save() {
    const sides = (each) => [each.left, each.top, each.right, each.bottom].join(",");
    const sent = ["mask", "allow"].includes(action()) ? rectangles : [];
    form.elements.rectangles.value = sent.filter((each) => !isText(each)).map(sides).join(";");
    form.elements.text.value = sent.filter(isText).map(sides).join(";");
    draw();
  }

  function changed() {
    list();
    save();
  }

  function place(event) {
    const box = canvas.getBoundingClientRect();
    const clamp = (value, most) => Math.round(Math.min(Math.max(value, 0), most));
    return [
      clamp(((event.clientX - box.left) / box.width) * size.columns, size.columns),
      clamp(((event.clientY - box.top) / box.height) * size.rows, size.rows),
    ];
  }

  function between([x, y], [u, v]) {
    return { left: Math.min(x, u), top: Math.min(y, v), right: Math.max(x, u), bottom: Math.max(y, v) };
  }

  function drawWithPointer() {
    let start = null;
    canvas.addEventListener("pointerdown", (event) => {
      start = place(event);
      canvas.setPointerCapture(event.pointerId);
    });
    canvas.addEventListener("pointermove", (event) => {
      if (!start) return;
      drawing = between(start, place(event));
      draw();
    });
    canvas.addEventListener("pointerup", (event) => {
      const rectangle = start && between(start, place(event));
      start = drawing = null;
      if (rectangle && rectangle.right > rectangle.left && rectangle.bottom > rectangle.top) {
        rectangles.push(rectangle);
      }
      changed();
    });
    input("add").addEventListener("click", () => {
      rectangles.push({ left: 0, top: 0, right: size.columns, bottom: Math.ceil(size.rows / 10) });
      changed();
      input("rectangles").lastElementChild.querySelector("input").focus();
    });
  }

  // Form

  function follow() {
    const rule = form.querySelector("[name=extent][value=rule]");
    rule.disabled = form.querySelector("[name=action]:checked").dataset.rule === "no";
    if (rule.disabled && rule.checked) form.querySelector("[name=extent][value=group]").checked = true;
    if (input("mask")) {
      input("mask").hidden = !["mask", "allow"].includes(action());
      changed();
    }
  }

  function choose() {
    [form.elements.link_id.value, form.elements.number.value] = objects.value.split(":");
    if (input("frame")) {
      input("frame").value = 1;
      input("frame-number").value = 1;
    }
  }

  for (const choice of form.querySelectorAll("[name=action]")) choice.addEventListener("change", follow);
  objects.addEventListener("change", choose);
  if (canvas) {
    input("show").addEventListener("click", showPicture);
    input("frame").addEventListener("input", () => (input("frame-number").value = input("frame").value));
    for (const id of ["object", "frame", "projection", "center", "width"]) {
      if (input(id)) input(id).addEventListener("change", showPicture);
    }
    if (input("mask")) drawWithPointer();
  } else {
    input("show-text").addEventListener("click", () => showText(false));
    if (input("show-clear")) input("show-clear").addEventListener("click", () => showText(true));
  }
  follow();
  choose();
  form.dataset.ready = "yes";
})();
