// The explorer: photos, changes, scores and lists that notebook 0 computed, shown by choice. Nothing is fetched.
"use strict";
(() => {
  const root = document.getElementById("explorer");
  if (!root || typeof EXPLORER === "undefined" || EXPLORER === null) return;
  const data = EXPLORER, WORDS = data.words, budgets = [0, ...data.epsilons];
  const make = (kind, parent, text, attributes = {}) => {
    const node = document.createElement(kind);
    if (text !== undefined && text !== null) node.textContent = text; // names from a catalogue stay text
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    if (parent) parent.append(node);
    return node;
  };
  root.replaceChildren();
  const form = make("fieldset", root), view = make("div", root, null, { "aria-live": "polite" });
  make("legend", form, "What happens", { class: "visually-hidden" });
  const select = (name, options) => {
    const label = make("label", form, name), node = make("select", label, null, { name });
    options.forEach(([text, value]) => make("option", node, text, { value }));
    return node;
  };
  const item = select("product", data.items.map((one, n) => [`${n + 1} · ${data.categories[one.item]}`, n]));
  const goal = select("the seller's goal", data.goals.map((name) => [WORDS[name] || name, name]));
  const defence = select("what the shop does", data.defences.map((name) => [WORDS[name] || name, name]));
  const budget = make("label", form, "how far a pixel may move: ±"), shown = make("output", budget);
  const epsilon = make("input", budget, null, { type: "range", min: 0, max: budgets.length - 1, value: budgets.indexOf(4) < 0 ? 1 : budgets.indexOf(4), name: "epsilon" });
  const check = make("label", form, null, { class: "check" }), knows = make("input", check, null, { type: "checkbox", name: "knows" });
  make("span", check, "the seller knows what the shop does");

  const decoded = new Map();
  const pixels = (uri) => {
    if (!decoded.has(uri)) {
      decoded.set(uri, new Promise((done) => {
        const image = new Image();
        image.onload = () => {
          const canvas = document.createElement("canvas");
          canvas.width = image.width; canvas.height = image.height;
          const context = canvas.getContext("2d", { willReadFrequently: true });
          context.drawImage(image, 0, 0);
          done(context.getImageData(0, 0, image.width, image.height));
        };
        image.src = uri;
      }));
    }
    return decoded.get(uri);
  };
  const draw = (parent, caption, picture) => {
    const figure = make("figure", parent), canvas = make("canvas", figure, null, { role: "img", "aria-label": caption, width: picture.width, height: picture.height });
    canvas.getContext("2d").putImageData(picture, 0, 0);
    make("figcaption", figure, caption);
  };
  const combined = (one, other, rule) => {
    const result = new ImageData(one.width, one.height);
    for (let i = 0; i < one.data.length; i++) result.data[i] = i % 4 === 3 ? 255 : rule(one.data[i], other ? other.data[i] - 128 : 0);
    return result;
  };
  const placed = (listed, own, rank) => {
    const others = listed.filter((other) => other !== own);
    return rank > 0 && rank <= listed.length ? [...others.slice(0, rank - 1), own, ...others.slice(rank - 1)].slice(0, listed.length) : others;
  };
  const row = (parent, name, listed, own, rank) => {
    make("small", parent, `One user's list ${name}: this product is at place ${rank.toLocaleString("en")}`);
    const list = make("ol", parent);
    for (const other of placed(listed, own, rank)) {
      const place = make("li", list, null, other === own ? { class: "ours" } : {});
      make("img", place, null, { src: data.thumbnails[other], alt: data.categories[other] + (other === own ? " (this product)" : ""), title: data.categories[other] });
    }
  };
  let latest = 0;
  const update = async () => {
    const turn = ++latest, one = data.items[item.value], e = budgets[epsilon.value];
    shown.textContent = `${e} of 255`;
    epsilon.setAttribute("aria-valuetext", `±${e} of 255`);
    knows.disabled = defence.value === "none";
    const wanted = `${goal.value}|${defence.value}|${e}`;
    const knower = knows.checked && !knows.disabled && one.cases[wanted] ? defence.value : "none";
    const key = `${goal.value}|${knower}|${e}`, found = one.cases[key];
    const before = one.outcomes[`none|none|0|${defence.value}`], after = one.outcomes[`${key}|${defence.value}`] || before;
    const photo = await pixels(one.photo), change = found ? await pixels(found.change) : null;
    if (turn !== latest) return; // another choice was made meanwhile
    const box = document.createElement("div");
    const share = (value) => `${(100 * value).toFixed(2)} %`, score = found ? found.score : one.score;
    const line = make("p", box, `In ${share(after[0])} of the lists; untouched in ${share(before[0])}. `);
    const above = score > data.threshold, would = defence.value === "none" ? "A detector would" + (above ? " flag it" : " not flag it") : above ? "Flagged" : "Not flagged";
    make("span", line, would, { class: above ? "flagged" : "free" });
    line.append(`: its score is ${score.toFixed(2)}, and the threshold ${data.threshold.toFixed(2)}.`);
    if (knows.checked && !knows.disabled && knower === "none" && e > 0) make("p", box, "(No photo was made for this goal by a seller who knows that; what is shown was made without.)");
    const photos = make("div", box, null, { class: "photos" });
    draw(photos, "its own photo", combined(photo, null, (x) => x));
    draw(photos, `change × ${data.gain}`, combined(photo, change, (x, d) => 128 + data.gain * d));
    draw(photos, "as uploaded", combined(photo, change, (x, d) => x + d));
    row(box, "before", one.lists[defence.value], one.item, before[1]);
    row(box, "after", one.lists[defence.value], one.item, after[1]);
    view.replaceChildren(box);
    root.dataset.shown = key;
  };
  for (const node of [item, goal, defence, knows]) node.addEventListener("change", update);
  epsilon.addEventListener("input", update);
  update();
})();
