//! Label selectors: `a=b,c!=d,e in (x,y),!f` and `metav1.LabelSelector`.

use serde_json::Value;

use crate::validate::names;

/// How a requirement compares a label with its values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operator {
    /// `=`, `==` and `in`: the label is one of the values.
    In,
    /// `!=` and `notin`: the label is absent or none of the values.
    NotIn,
    /// The label is present.
    Exists,
    /// The label is absent.
    DoesNotExist,
    /// The label is a whole number above the value.
    GreaterThan,
    /// The label is a whole number below the value.
    LessThan,
}

/// One comparison of a label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requirement {
    /// Label key.
    pub key: String,
    /// Comparison.
    pub operator: Operator,
    /// Right-hand side; empty for the presence operators.
    pub values: Vec<String>,
}

/// Requirements that must all hold; none at all matches everything.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LabelSelector {
    /// The requirements.
    pub requirements: Vec<Requirement>,
    /// Set for a null `LabelSelector`, which matches nothing.
    pub nothing: bool,
}

/// Why a selector cannot be read; the texts are the server's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LabelSelectorError {
    /// The query grammar is violated.
    #[error("unable to parse requirement: {0}")]
    Grammar(String),
    /// `LabelSelector` with an operator that does not exist.
    #[error("\"{0}\" is not a valid label selector operator")]
    Operator(String),
}

impl LabelSelector {
    /// Parses a `labelSelector` query parameter.
    pub fn parse(text: &str) -> Result<Self, LabelSelectorError> {
        Parser {
            tokens: lex(text),
            at: 0,
        }
        .selector()
    }

    /// Reads a `metav1.LabelSelector`; null matches nothing, `{}` everything.
    pub fn from_value(value: &Value) -> Result<Self, LabelSelectorError> {
        if value.is_null() {
            return Ok(LabelSelector {
                requirements: Vec::new(),
                nothing: true,
            });
        }
        let mut selector = Self::from_map(&value["matchLabels"]);
        for expression in value["matchExpressions"].as_array().into_iter().flatten() {
            let name = expression["operator"].as_str().unwrap_or_default();
            let operator = match name {
                "In" => Operator::In,
                "NotIn" => Operator::NotIn,
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::DoesNotExist,
                _ => return Err(LabelSelectorError::Operator(name.to_owned())),
            };
            let values = expression["values"].as_array().into_iter().flatten();
            selector.requirements.push(Requirement {
                key: expression["key"].as_str().unwrap_or_default().to_owned(),
                operator,
                values: values
                    .filter_map(Value::as_str)
                    .map(str::to_owned)
                    .collect(),
            });
        }
        Ok(selector)
    }

    /// A map of labels that must all be equal, as Services have.
    pub fn from_map(labels: &Value) -> Self {
        let requirements = labels
            .as_object()
            .into_iter()
            .flatten()
            .map(|(key, value)| Requirement {
                key: key.clone(),
                operator: Operator::In,
                values: vec![value.as_str().unwrap_or_default().to_owned()],
            })
            .collect();
        LabelSelector {
            requirements,
            nothing: false,
        }
    }

    /// Whether no requirement is made.
    pub fn is_everything(&self) -> bool {
        !self.nothing && self.requirements.is_empty()
    }

    /// Whether `labels` (a JSON object or null) meets every requirement.
    pub fn matches(&self, labels: &Value) -> bool {
        !self.nothing && self.requirements.iter().all(|r| r.matches(labels))
    }

    /// Whether the labels of an object meet every requirement.
    pub fn matches_object(&self, object: &Value) -> bool {
        self.matches(&object["metadata"]["labels"])
    }
}

impl Requirement {
    fn matches(&self, labels: &Value) -> bool {
        let label = labels.get(&self.key).and_then(Value::as_str);
        let among = |label: &str| self.values.iter().any(|v| v == label);
        let number = |text: &str| text.parse::<i64>().ok();
        let bound = self.values.first().and_then(|v| number(v));
        match self.operator {
            Operator::In => label.is_some_and(among),
            Operator::NotIn => !label.is_some_and(among),
            Operator::Exists => label.is_some(),
            Operator::DoesNotExist => label.is_none(),
            Operator::GreaterThan => label
                .and_then(number)
                .zip(bound)
                .is_some_and(|(l, b)| l > b),
            Operator::LessThan => label
                .and_then(number)
                .zip(bound)
                .is_some_and(|(l, b)| l < b),
        }
    }
}

/// The query form, in the order of the requirements.
impl std::fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        for (index, requirement) in self.requirements.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            let Requirement {
                key,
                operator,
                values,
            } = requirement;
            let list = values.join(",");
            match operator {
                Operator::In if values.len() == 1 => write!(f, "{key}={list}")?,
                Operator::NotIn if values.len() == 1 => write!(f, "{key}!={list}")?,
                Operator::In => write!(f, "{key} in ({list})")?,
                Operator::NotIn => write!(f, "{key} notin ({list})")?,
                Operator::Exists => write!(f, "{key}")?,
                Operator::DoesNotExist => write!(f, "!{key}")?,
                Operator::GreaterThan => write!(f, "{key}>{list}")?,
                Operator::LessThan => write!(f, "{key}<{list}")?,
            }
        }
        Ok(())
    }
}

#[derive(Debug, Clone, PartialEq)]
enum Token {
    Word(String),
    Symbol(&'static str),
}

impl Token {
    fn text(&self) -> &str {
        match self {
            Token::Word(word) => word,
            Token::Symbol(symbol) => symbol,
        }
    }
}

const SYMBOLS: [&str; 9] = ["==", "!=", "=", "!", "(", ")", ",", ">", "<"];

fn lex(text: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        if let Some(symbol) = SYMBOLS.iter().find(|s| rest.starts_with(**s)) {
            tokens.push(Token::Symbol(symbol));
            rest = &rest[symbol.len()..];
        } else {
            let end = rest
                .find(|c: char| c.is_whitespace() || "=!(),><".contains(c))
                .unwrap_or(rest.len());
            tokens.push(Token::Word(rest[..end].to_owned()));
            rest = &rest[end..];
        }
        rest = rest.trim_start();
    }
    tokens
}

struct Parser {
    tokens: Vec<Token>,
    at: usize,
}

impl Parser {
    fn next(&mut self) -> Option<Token> {
        let token = self.tokens.get(self.at).cloned();
        self.at += 1;
        token
    }

    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at)
    }

    fn selector(mut self) -> Result<LabelSelector, LabelSelectorError> {
        let mut selector = LabelSelector::default();
        if self.tokens.is_empty() {
            return Ok(selector);
        }
        loop {
            selector.requirements.push(self.requirement()?);
            match self.next() {
                None => return Ok(selector),
                Some(Token::Symbol(",")) if self.peek().is_some() => {}
                Some(Token::Symbol(",")) => {
                    return Err(expected("", "identifier after ','"));
                }
                Some(token) => return Err(expected(token.text(), "',' or 'end of string'")),
            }
        }
    }

    fn requirement(&mut self) -> Result<Requirement, LabelSelectorError> {
        let negated = self.peek() == Some(&Token::Symbol("!"));
        if negated {
            self.at += 1;
        }
        let key = match self.next() {
            Some(Token::Word(word)) => word,
            Some(token) => {
                return Err(expected(token.text(), "!, identifier, or 'end of string'"));
            }
            None => return Err(expected("", "identifier")),
        };
        if let Some(fault) = names::qualified_name(&key).into_iter().next() {
            return Err(LabelSelectorError::Grammar(format!(
                "<nil>: Invalid value: \"{key}\": {fault}"
            )));
        }
        let done = matches!(self.peek(), None | Some(Token::Symbol(",")));
        if negated || done {
            let operator = if negated {
                Operator::DoesNotExist
            } else {
                Operator::Exists
            };
            return Ok(Requirement {
                key,
                operator,
                values: Vec::new(),
            });
        }
        let token = self.next();
        let operator = match token.as_ref().map(Token::text) {
            Some("=" | "==" | "in") => Operator::In,
            Some("!=" | "notin") => Operator::NotIn,
            Some(">") => Operator::GreaterThan,
            Some("<") => Operator::LessThan,
            other => {
                return Err(expected(
                    other.unwrap_or_default(),
                    "in, notin, =, ==, !=, gt, lt",
                ));
            }
        };
        let values = match token {
            Some(Token::Word(_)) => self.list()?,
            _ => vec![self.value()],
        };
        self.check_values(&key, operator, &values)?;
        Ok(Requirement {
            key,
            operator,
            values,
        })
    }

    /// The single value after `=`; an absent one is the empty string.
    fn value(&mut self) -> String {
        match self.peek() {
            Some(Token::Word(word)) => {
                let word = word.clone();
                self.at += 1;
                word
            }
            _ => String::new(),
        }
    }

    /// `(a, b)` after `in` and `notin`.
    fn list(&mut self) -> Result<Vec<String>, LabelSelectorError> {
        match self.next() {
            Some(Token::Symbol("(")) => {}
            other => return Err(expected(other.as_ref().map_or("", Token::text), "'('")),
        }
        let mut values = Vec::new();
        loop {
            values.push(self.value());
            match self.next() {
                Some(Token::Symbol(",")) => {}
                Some(Token::Symbol(")")) => return Ok(values),
                other => {
                    return Err(expected(
                        other.as_ref().map_or("", Token::text),
                        "',', ')' or identifier",
                    ));
                }
            }
        }
    }

    fn check_values(
        &self,
        key: &str,
        operator: Operator,
        values: &[String],
    ) -> Result<(), LabelSelectorError> {
        let numeric = matches!(operator, Operator::GreaterThan | Operator::LessThan);
        for value in values {
            if numeric && value.parse::<i64>().is_err() {
                return Err(LabelSelectorError::Grammar(format!(
                    "values[0][{key}]: Invalid value: \"{value}\": for 'Gt', 'Lt' operators, the value must be an integer"
                )));
            }
            if let Some(fault) = names::label_value(value).into_iter().next() {
                return Err(LabelSelectorError::Grammar(format!(
                    "values[0][{key}]: Invalid value: \"{value}\": {fault}"
                )));
            }
        }
        Ok(())
    }
}

fn expected(found: &str, wanted: &str) -> LabelSelectorError {
    LabelSelectorError::Grammar(format!("found '{found}', expected: {wanted}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn grammar() {
        let labels = json!({"app": "web", "tier": "front", "n": "5", "k8s.io/x": ""});
        for (text, matches) in [
            ("", true),
            ("app=web", true),
            ("app==web", true),
            ("app = web , tier=front", true),
            ("app!=web", false),
            ("other!=web", true),
            ("app in (a, web)", true),
            ("app in (a)", false),
            ("app notin (a,b)", true),
            ("x notin (a)", true),
            ("app", true),
            ("!app", false),
            ("!x", true),
            ("n>4", true),
            ("n<5", false),
            ("app>1", false),
            ("k8s.io/x=", true),
            ("k8s.io/x=,app", true),
        ] {
            let selector = LabelSelector::parse(text).unwrap();
            assert_eq!(selector.matches(&labels), matches, "{text}");
        }
    }

    #[test]
    fn grammar_errors() {
        for (text, message) in [
            (
                "app=web,",
                "unable to parse requirement: found '', expected: identifier after ','",
            ),
            (
                "app in web",
                "unable to parse requirement: found 'web', expected: '('",
            ),
            (
                "app web",
                "unable to parse requirement: found 'web', expected: in, notin, =, ==, !=, gt, lt",
            ),
            (
                "=x",
                "unable to parse requirement: found '=', expected: !, identifier, or 'end of string'",
            ),
        ] {
            assert_eq!(LabelSelector::parse(text).unwrap_err().to_string(), message);
        }
        assert!(LabelSelector::parse("-a=b").is_err());
        assert!(LabelSelector::parse("a=-b").is_err());
        assert!(LabelSelector::parse("a>b").is_err());
    }

    #[test]
    fn objects() {
        let labels = json!({"app": "web"});
        let selector = |v: Value| LabelSelector::from_value(&v).unwrap();
        assert!(!selector(Value::Null).matches(&labels));
        assert!(selector(json!({})).matches(&labels));
        assert!(selector(json!({"matchLabels": {"app": "web"}})).matches(&labels));
        let both = selector(json!({"matchLabels": {"app": "web"},
            "matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["x"]}]}));
        assert!(both.matches(&labels));
        assert_eq!(both.to_string(), "app=web,app!=x");
        assert!(
            LabelSelector::from_value(
                &json!({"matchExpressions": [{"key": "a", "operator": "Foo"}]})
            )
            .is_err()
        );
    }
}
