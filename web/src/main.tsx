import { render } from "preact";
import { App } from "./app";
import "./styles/base.css";
import "./styles/parts.css";
import "./styles/views.css";
import "./styles/charts.css";

const place = document.getElementById("app");
if (place) render(<App />, place);
