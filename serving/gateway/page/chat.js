// The chat page: one question at a time, thinking and answer apart, numbers while they grow. No dependencies.
"use strict";

const TEXTS = {
  en: {
    use: "For research and clinician decision support. Not a medical device; it makes no autonomous diagnosis. Enter no data that identifies a patient.",
    question: "Case and question",
    example: "Example case",
    exampleText: "A 45-year-old woman has had fever and cough with rusty sputum for three days; crackles over the right lower lung. What is the most likely diagnosis?",
    key: "API key", send: "Ask", stop: "Stop",
    thinking: "Thinking", answer: "Answer", conclusion: "Conclusion:",
    thoughtTokens: "Thought tokens", thoughtTime: "Thinking time", firstAnswer: "First answer after",
    rate: "Pieces per second", state: "State",
    waiting: "waiting", isThinking: "thinking", answering: "answering", done: "done", cut: "cut at the token limit",
    stopped: "stopped", failed: "failed", noThought: "The model answered without thinking.",
    noAnswer: "No answer came after the thought.",
    api: "API description", metrics: "Metrics", health: "Health",
    errors: {},
  },
  zh: {
    use: "仅供科研与临床医生决策支持使用。本系统不是医疗器械，不作自主诊断。请勿输入可识别患者身份的信息。",
    question: "病例与问题",
    example: "示例病例",
    exampleText: "患者女，45岁，发热、咳嗽三天，咳铁锈色痰，右下肺可闻及湿啰音。最可能的诊断是什么？",
    key: "接口密钥", send: "提问", stop: "停止",
    thinking: "思考过程", answer: "回答", conclusion: "结论：",
    thoughtTokens: "思考词元数", thoughtTime: "思考时长", firstAnswer: "首个回答用时",
    rate: "每秒片段数", state: "状态",
    waiting: "等待中", isThinking: "思考中", answering: "回答中", done: "完成", cut: "达到词元上限而中断",
    stopped: "已停止", failed: "失败", noThought: "模型未经思考直接作答。",
    noAnswer: "思考之后没有给出回答。",
    api: "接口说明", metrics: "指标", health: "健康状态",
    // By the gateway's error codes; a code without a text here is shown as the gateway words it.
    errors: {
      unauthorized: "接口密钥缺失或无效，请填写有效的密钥。", unknown_model: "没有该模型，请刷新页面后重试。",
      body_too_large: "问题过长，请缩短后重试。", bad_field: "请求中有字段不被接受，可能是问题过长。",
      body_timeout: "请求未能及时送达，请重试。", overloaded: "当前请求过多，请稍后再试。",
      draining: "服务正在重启，请重新提问。", engine_busy: "模型服务繁忙，请稍后再试。",
      engine_refused: "模型服务拒绝了该请求，可能是问题过长。", engine_unreachable: "无法连接模型服务，请稍后再试。",
      engine_failed: "模型服务在作答时出错，请重试。", engine_timeout: "模型服务未能及时作答，请重试。",
      internal: "内部错误，请将请求编号告知管理员。",
    },
  },
};

const $ = (id) => document.getElementById(id);
let language = navigator.language.startsWith("zh") ? "zh" : "en";
let info = { model: "", model_version: "", token_method: "", needs_key: false, requests: {}, labels: [] };
let running = null;

function say(root) {
  for (const node of root.querySelectorAll("[data-text]")) node.textContent = TEXTS[language][node.dataset.text];
}

function setLanguage(value) {
  language = value;
  document.documentElement.lang = value;
  for (const button of document.querySelectorAll("nav button"))
    button.setAttribute("aria-pressed", String(button.dataset.language === value));
  say(document);
  for (const node of document.querySelectorAll("[data-state]")) node.textContent = TEXTS[language][node.dataset.state];
}

// What the gateway says of a failure, in the page's language.
function failure(error) {
  return new Error(TEXTS[language].errors[error.code] ?? error.message);
}

function seconds(milliseconds) {
  return (milliseconds / 1000).toFixed(1) + " s";
}

// The request for a conclusion line that the model was trained with, in the words of the gateway; none where the
// question has one. A question of another thing than a diagnosis is asked for an answer.
function asked(question) {
  if (info.labels.some((label) => question.includes(label))) return question;
  const chinese = (question.match(/[\u4e00-\u9fff]/g) ?? []).length > question.length / 7;
  const other = /[?？]/.test(question) && !/diagnos|disease|condition|诊断|病/i.test(question.slice(-200));
  const request = info.requests[chinese ? "zh" : "en"]?.[other ? "answer" : "diagnosis"];
  return request ? question + "\n\n" + request : question;
}

// What the last conclusion line of an answer states; "" without one.
function conclusionOf(answer) {
  for (const line of answer.split("\n").reverse()) {
    const plain = line.replace(/[*_`#>]/g, "").replace("：", ":").trim();
    const label = info.labels.find((one) => plain.toLowerCase().startsWith(one.replace("：", ":").toLowerCase()));
    if (label) return plain.slice(label.length).trim();
  }
  return "";
}

// The newest text stays in view unless the reader has scrolled back.
function atEnd() {
  return innerHeight + scrollY > document.documentElement.scrollHeight - 80;
}

function follow() {
  scrollTo(0, document.documentElement.scrollHeight);
}

// Yields the JSON objects of a server-sent event stream.
async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    held += value;
    const parts = held.split("\n\n");
    held = parts.pop();
    for (const part of parts) {
      const data = part.replace(/^data: ?/, "");
      if (data === "[DONE]") return;
      yield JSON.parse(data);
    }
  }
}

class Turn {
  constructor(question) {
    const article = $("turn").content.cloneNode(true).firstElementChild;
    say(article);
    this.node = (name) => article.querySelector("." + name);
    this.node("asked").textContent = question;
    this.start = performance.now();
    this.firstThought = this.endThought = this.firstAnswer = 0;
    this.pieces = 0;
    this.finish = null;
    this.state("waiting");
    $("turns").append(article);
    follow();
  }

  state(name) {
    this.node("n-state").dataset.state = name;
    this.node("n-state").textContent = TEXTS[language][name];
  }

  take(chunk) {
    if (chunk.error) throw failure(chunk.error);
    const following = atEnd();
    const now = performance.now();
    const thought = chunk.usage?.completion_tokens_details?.reasoning_tokens;
    if (thought !== undefined) this.node("n-tokens").textContent = String(thought);
    for (const { delta, finish_reason } of chunk.choices) {
      if (delta.reasoning_content) {
        if (!this.firstThought) this.state("isThinking");
        this.firstThought ||= now;
        this.node("thought").append(delta.reasoning_content);
        this.pieces += 1;
        this.node("n-tokens").textContent = "≈ " + this.pieces;
        this.node("n-think").textContent = seconds(now - this.firstThought);
      }
      if (delta.content) {
        if (!this.firstAnswer) {
          this.firstAnswer = this.endThought = now;
          this.state("answering");
          this.node("n-first").textContent = seconds(now - this.start);
          if (this.firstThought) this.node("n-think").textContent = seconds(now - this.firstThought);
        }
        this.node("said").append(delta.content);
        this.pieces += 1;
      }
      if (finish_reason) this.finish = finish_reason;
    }
    const since = this.firstThought || this.firstAnswer;
    if (since && now - since > 300) this.node("n-rate").textContent = (this.pieces / ((now - since) / 1000)).toFixed(1);
    if (following) follow();
  }

  end() {
    this.state(this.finish === "length" ? "cut" : "done");
    if (!this.firstThought) this.note("thought", "noThought");
    if (!this.firstAnswer) this.note("said", "noAnswer");
    const conclusion = this.firstAnswer ? conclusionOf(this.node("said").textContent) : "";
    this.node("conclusion").hidden = !conclusion;
    this.node("concluded").textContent = conclusion;
  }

  note(where, name) {
    this.node(where).dataset.state = name;
    this.node(where).textContent = TEXTS[language][name];
  }

  fail(name, message) {
    this.state(name);
    if (!message) return;
    this.node("failed").hidden = false;
    this.node("failed").textContent = message;
  }
}

async function ask(question) {
  const turn = new Turn(question);
  running = new AbortController();
  $("send").disabled = true;
  $("stop").hidden = false;
  const headers = { "Content-Type": "application/json" };
  if ($("key").value) headers.Authorization = "Bearer " + $("key").value;
  const body = { model: info.model, messages: [{ role: "user", content: asked(question) }], stream: true, stream_options: { include_usage: true } };
  try {
    const response = await fetch("v1/chat/completions", { method: "POST", headers, body: JSON.stringify(body), signal: running.signal });
    if (!response.ok) throw failure((await response.json()).error);
    for await (const chunk of events(response.body)) turn.take(chunk);
    turn.end();
  } catch (problem) {
    if (problem.name === "AbortError") turn.fail("stopped");
    else turn.fail("failed", problem.message);
  } finally {
    running = null;
    $("send").disabled = false;
    $("stop").hidden = true;
  }
}

$("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  const question = $("question").value.trim();
  if (!question || running) return;
  $("question").value = "";
  ask(question);
});
$("question").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) $("ask").requestSubmit();
});
$("stop").addEventListener("click", () => running?.abort());
$("example").addEventListener("click", () => { $("question").value = TEXTS[language].exampleText; $("question").focus(); });
for (const button of document.querySelectorAll("nav button"))
  button.addEventListener("click", () => setLanguage(button.dataset.language));

setLanguage(language);
fetch("page/info").then((response) => response.json()).then((given) => {
  info = given;
  $("model").textContent = `${info.model} · ${info.model_version}`;
  $("key-row").hidden = !info.needs_key;
  document.body.dataset.ready = "yes";
});
