/* The page's behaviour: brings pictures, shows answers as they grow without losing focus, keeps what was asked. */
var opengritPage = (function () {
  "use strict";

  var picture = "", source = "", running = false, watch = null, next = null, viewer = null, past = [], spoken = {};

  function at(id) { return document.getElementById(id); }
  function box() { return document.querySelector("#og-question textarea"); }

  /* -- what Gradio asks for when somebody asks ---------------------------------------------------------------- */

  function question() { return box() ? box().value : ""; }

  function write(text) {
    var set = Object.getOwnPropertyDescriptor(HTMLTextAreaElement.prototype, "value").set;
    set.call(box(), text);
    box().dispatchEvent(new Event("input", { bubbles: true }));
  }

  /* What Gradio sends when the Ask button is pressed. From here on the page waits for an answer. */
  function asked(models) {
    setRunning(true);
    return [picture, question(), models];
  }

  function ask() { if (!running) at("og-ask").click(); }

  function whenIdle(act) {
    if (!running) { act(); return; }
    next = act;
    at("og-stop").click();
  }

  /* -- pictures ------------------------------------------------------------------------------------------------ */

  function tell(text, isProblem) {
    at("og-status").textContent = text;
    at("og-status").classList.toggle("og-problem", Boolean(isProblem));
  }

  function take(name, src, title) {
    picture = name; source = src;
    at("og-thumb").src = src;
    at("og-thumb").hidden = false;
    at("og-choose").classList.add("og-has");
    at("og-choose-name").textContent = title;
    at("og-choose-how").textContent = "Choose, drop or paste another";
    document.body.classList.add("og-begun");
  }

  function bring(file) {
    tell("Reading the picture.");
    var name = file.name || "picture";
    return fetch("page/pictures?name=" + encodeURIComponent(name), { method: "POST", body: file }).then(function (reply) {
      return reply.json().then(function (said) {
        if (!reply.ok) { tell(said.error.message || said.error, true); return; }
        take(said.name, said.src, name);
        tell("");
        if (!running) { swap(said.html); mark(null); }
        box().focus();
      });
    }).catch(function () { tell("The server cannot be reached. Is it still running?", true); });
  }

  function firstPicture(transfer) {
    return Array.from((transfer && transfer.files) || []).find(function (file) {
      return file.type.indexOf("image/") === 0 || !file.type;
    });
  }

  /* -- answers ------------------------------------------------------------------------------------------------- */

  /* Makes `old` like `fresh` and keeps every node that did not change: focus, scroll and the picture stay. */
  function morph(old, fresh) {
    if (old.nodeType !== 1) { if (old.nodeValue !== fresh.nodeValue) old.nodeValue = fresh.nodeValue; return; }
    Array.from(fresh.attributes).forEach(function (a) {
      if (a.name === "aria-pressed" || (a.name === "class" && old.dataset && old.dataset.point)) return;
      if (old.getAttribute(a.name) !== a.value) old.setAttribute(a.name, a.value);
    });
    Array.from(old.attributes).forEach(function (a) {
      if (!fresh.hasAttribute(a.name)) old.removeAttribute(a.name);
    });
    var place = old.firstChild;
    Array.from(fresh.childNodes).forEach(function (wanted) {
      var found = place;
      if (wanted.id) found = Array.from(old.children).find(function (c) { return c.id === wanted.id; }) || null;
      else if (place && (place.id || place.nodeName !== wanted.nodeName)) found = null;
      if (!found) { old.insertBefore(document.importNode(wanted, true), place); return; }
      if (found === place) place = place.nextSibling; else old.insertBefore(found, place);
      morph(found, wanted);
    });
    while (place) { var gone = place; place = place.nextSibling; old.removeChild(gone); }
  }

  function swap(html) {
    var fresh = document.createElement("template");
    fresh.innerHTML = html;
    var wrapped = at("og-stage").cloneNode(false);
    wrapped.appendChild(fresh.content);
    morph(at("og-stage"), wrapped);
    viewer.paint();
  }

  /* What is new in each text is read out in whole sentences, and the answer at the end. */
  function speak() {
    var said = [];
    at("og-stage").querySelectorAll(".og-reply").forEach(function (part) {
      var text = part.querySelector(".og-text") ? part.querySelector(".og-text").textContent : "";
      var from = spoken[part.id] || 0, ended = part.dataset.progress !== "writing";
      var to = ended ? text.length : Math.max(from, text.lastIndexOf(". ") + 1, text.lastIndexOf(">") + 1);
      if (to > from) said.push(text.slice(from, to));
      spoken[part.id] = to;
      var end = part.querySelector(".og-problem, .og-final");
      if (ended && end) said.push(part.getAttribute("aria-label") + ": " + end.textContent + ". " + part.querySelector(".og-note").textContent);
    });
    if (said.length) at("og-voice").textContent = said.join(" ");
  }

  function setRunning(now) {
    var began = now && !running, ended = running && !now;
    running = now;
    document.body.classList.toggle("og-running", now);
    at("og-ask").setAttribute("aria-disabled", String(now));
    at("og-stop").setAttribute("aria-disabled", String(!now));
    if (began) {
      spoken = {};
      if (document.activeElement === at("og-ask")) at("og-stop").focus({ preventScroll: true });
      watch = setInterval(lookAfter, 3000);
    }
    if (ended) clearInterval(watch);
    if (ended && document.activeElement === at("og-stop")) at("og-ask").focus({ preventScroll: true });
    if (ended && next) { var act = next; next = null; setTimeout(act, 0); }
  }

  function reveal() {
    var top = at("og-stage").getBoundingClientRect().top;
    if (top >= 0 && top < window.innerHeight / 2) return;
    var calm = window.matchMedia("(prefers-reduced-motion: reduce)").matches;
    at("og-stage").scrollIntoView({ block: "start", behavior: calm ? "auto" : "smooth" });
  }

  /* A server that is gone sends no news: ask for a sign of life as long as some are awaited. */
  function lookAfter() { fetch("page/alive", { cache: "no-store" }).catch(function () { if (running) lost(); }); }

  function news(said) {
    if (!said) return;
    tell(said.status, !said.running && said.status !== "");
    if (said.running !== running) setRunning(said.running);
    if (!said.html) return;
    var isNew = !at("og-stage").querySelector("#" + /id="([^"]+)"/.exec(said.html)[1]);
    swap(said.html);
    mark(null);
    if (isNew) reveal();
    speak();
    if (!said.running) remember(said.html);
  }

  function lost() {
    tell("The server cannot be reached. Is it still running?", true);
    if (running) setRunning(false);
  }

  /* -- what was asked so far ----------------------------------------------------------------------------------- */

  function remember(html) {
    var finals = Array.from(at("og-stage").querySelectorAll(".og-final strong"));
    past.unshift({ html: html, src: source, question: at("og-stage").querySelector(".og-asked").textContent.trim(),
                   answer: finals.map(function (f) { return f.textContent; }).join(" | ") || "no answer" });
    past.length = Math.min(past.length, 40);
    at("og-past").hidden = false;
    at("og-history").replaceChildren.apply(at("og-history"), past.map(function (entry, i) {
      var card = document.createElement("button"), image = document.createElement("img");
      var words = document.createElement("span"), answer = document.createElement("small");
      card.type = "button"; card.dataset.past = String(i);
      image.src = entry.src; image.alt = "";
      words.textContent = entry.question; answer.textContent = entry.answer;
      words.append(answer); card.append(image, words);
      return card;
    }));
    mark(0);
  }

  function mark(index) {
    document.querySelectorAll("#og-history button").forEach(function (card) {
      if (card.dataset.past === String(index)) card.setAttribute("aria-current", "true");
      else card.removeAttribute("aria-current");
    });
  }

  function fetchFile(link) {
    fetch(link.href).then(function (reply) {
      if (!reply.ok) return reply.text().then(function (problem) { tell(problem, true); });
      var name = /filename="([^"]+)"/.exec(reply.headers.get("Content-Disposition") || "");
      return reply.blob().then(function (content) {
        var way = document.createElement("a");
        way.href = URL.createObjectURL(content);
        way.download = name ? name[1] : "answer";
        way.click();
        setTimeout(function () { URL.revokeObjectURL(way.href); }, 60000);
      });
    }).catch(function () { tell("The server cannot be reached. Is it still running?", true); });
  }

  /* -- colours ------------------------------------------------------------------------------------------------- */

  function paintTheme() {
    var dark = document.body.classList.contains("dark");
    if (at("og-theme")) at("og-theme").setAttribute("aria-pressed", String(dark));
  }

  /* -- events -------------------------------------------------------------------------------------------------- */

  document.addEventListener("click", function (event) {
    if (!running || !event.target.closest || !event.target.closest("#og-ask")) return;
    event.preventDefault();
    event.stopPropagation();
  }, true);
  document.addEventListener("click", function (event) {
    var part = event.target.closest ? event.target.closest("button, a") : null;
    if (!part) return;
    if (part.id === "og-choose") at("og-file").click();
    if (part.id === "og-theme") { document.body.classList.toggle("dark"); paintTheme(); }
    if (part.dataset.example) {
      whenIdle(function () {
        take(part.dataset.example, part.querySelector("img").getAttribute("src"), "Example picture");
        write(part.dataset.question);
        setTimeout(ask, 0);
      });
    }
    if (part.dataset.past && !running) { swap(past[Number(part.dataset.past)].html); mark(part.dataset.past); tell(""); reveal(); }
    if (part.closest(".og-downloads")) { event.preventDefault(); fetchFile(part); }
  });
  document.addEventListener("change", function (event) {
    if (event.target.id !== "og-file" || !event.target.files.length) return;
    bring(event.target.files[0]);
    event.target.value = "";
  });
  document.addEventListener("keydown", function (event) {
    if (event.key !== "Enter" || event.isComposing || !event.target.closest) return;
    var inBox = event.target.closest("#og-question") !== null;
    if (inBox && event.shiftKey) { event.stopPropagation(); return; } /* a new line */
    if (inBox || event.ctrlKey || event.metaKey) { event.preventDefault(); event.stopPropagation(); ask(); }
  }, true);
  document.addEventListener("keypress", function (event) {
    /* Gradio makes a "submit" of Shift and Enter, and takes the new line away. */
    if (event.key === "Enter" && event.target.closest("#og-question")) event.stopPropagation();
  }, true);
  document.addEventListener("keydown", function (event) {
    if (event.key === "Escape" && running && !event.target.closest("#og-stage")) at("og-stop").click();
  });
  document.addEventListener("paste", function (event) {
    var file = firstPicture(event.clipboardData);
    if (file) { event.preventDefault(); bring(file); }
  });
  ["dragenter", "dragover"].forEach(function (kind) {
    document.addEventListener(kind, function (event) {
      if (!event.dataTransfer || !Array.from(event.dataTransfer.types).includes("Files")) return;
      event.preventDefault();
      document.body.classList.add("og-dragging");
    });
  });
  document.addEventListener("dragleave", function (event) {
    if (!event.relatedTarget) document.body.classList.remove("og-dragging");
  });
  document.addEventListener("drop", function (event) {
    document.body.classList.remove("og-dragging");
    if (!event.dataTransfer || !event.dataTransfer.files.length) return;
    event.preventDefault();
    var file = firstPicture(event.dataTransfer);
    if (file) bring(file); else tell("This is not a picture. Drop a PNG or a JPEG, for example.", true);
  });

  function listen(props, follow) {
    follow("value", function () { news(props.value); });
    (function start() {
      if (!["og-stage", "og-ask", "og-stop", "og-status", "og-history"].every(at) || !box()) {
        requestAnimationFrame(start);
        return;
      }
      viewer = opengritViewer.start(at("og-stage"));
      at("og-stop").setAttribute("aria-disabled", "true");
      paintTheme();
      document.body.classList.add("og-started");
    })();
  }

  return { asked: asked, listen: listen, lost: lost };
})();
