use super::server::{Step, exec_server, refusing_server, success};
use super::*;
use tokio::io::AsyncReadExt;

const COMMAND: &[&str] = &["/kubectl-backup", "worker", "result"];

async fn run_there(client: &kube::Client, out: &mut (impl AsyncWrite + Unpin + Send)) -> Result<ExecExit, Error> {
    run(client, "kubectl-backup", "pod-1", "worker", COMMAND, out, Duration::from_secs(20)).await
}

fn failure(reason: &str, causes: &str) -> Step {
    let text = format!(
        r#"{{"metadata":{{}},"status":"Failure","message":"said the kubelet","reason":"{reason}","details":{{"causes":{causes}}}}}"#
    );
    Step::Send(3, text.into_bytes())
}

#[tokio::test]
async fn prints_and_exit_code_arrive_whole() {
    let half: Vec<u8> = (0..700_000u32).map(|n| n as u8).collect();
    let steps = vec![
        Step::Send(1, half.clone()),
        Step::Send(2, vec![b'x'; 10_000]),
        Step::Send(2, b"the reason".to_vec()),
        Step::Send(1, half.clone()),
        failure("NonZeroExitCode", r#"[{"reason":"ExitCode","message":"42"}]"#),
    ];
    let (client, request) = exec_server(steps).await;
    let mut out = Vec::new();
    let exit = run_there(&client, &mut out).await.unwrap();
    assert_eq!(exit.code, 42);
    assert!(out == [half.clone(), half].concat(), "{} bytes", out.len());
    assert_eq!(exit.stderr_tail.len(), KEPT);
    assert!(exit.stderr_tail.ends_with("the reason"));
    let request = request.lock().unwrap().clone();
    assert_eq!(
        request,
        "GET /api/v1/namespaces/kubectl-backup/pods/pod-1/exec?&stdout=true&stderr=true&container=worker\
         &command=%2Fkubectl-backup&command=worker&command=result HTTP/1.1"
    );
}

#[tokio::test]
async fn a_slow_reader_holds_the_sender_back_and_loses_nothing() {
    let all = 24 * STDOUT_BUFFER;
    let steps = (0..24).map(|_| Step::Send(1, vec![7; STDOUT_BUFFER])).chain([success()]).collect();
    let (client, _) = exec_server(steps).await;
    let (mut near, mut far) = tokio::io::duplex(1000);
    let read = async {
        let (mut count, mut buffer) = (0, vec![0; 4096]);
        loop {
            match far.read(&mut buffer).await.unwrap() {
                0 => return count,
                some => count += some,
            }
        }
    };
    let run = async {
        let exit = run_there(&client, &mut near).await;
        drop(near);
        exit
    };
    let (exit, count) = tokio::join!(run, read);
    assert_eq!((exit.unwrap().code, count), (0, all));
}

#[tokio::test]
async fn a_command_can_be_answered() {
    let steps = vec![Step::Send(1, b"ready".to_vec()), Step::Expect("received\n"), success()];
    let (client, request) = exec_server(steps).await;
    let exec = Exec { namespace: "n", pod: "p", container: "c", command: &["cat"], timeout: Duration::from_secs(20) };
    let mut input: &[u8] = b"received\n";
    let mut out = Vec::new();
    let exit = converse(&client, &exec, Some(&mut input), &mut out).await.unwrap();
    assert_eq!((exit.code, out.as_slice()), (0, b"ready".as_slice()));
    assert!(request.lock().unwrap().contains("stdin=true"));
}

#[tokio::test]
async fn a_broken_connection_is_no_end() {
    let (client, _) = exec_server(vec![Step::Send(1, b"half of".to_vec())]).await;
    let mut out = Vec::new();
    let error = run_there(&client, &mut out).await.unwrap_err();
    assert!(matches!(error, Error::Broken { .. }) && error.is_transient(), "{error}");
    assert_eq!(error.to_string(), "the connection to pod `pod-1` ended before `/kubectl-backup` did");
}

#[tokio::test]
async fn a_hanging_command_ends_at_the_timeout_and_what_it_said_is_known() {
    let long = [vec![b'x'; 2 * KEPT], b"the last".to_vec()].concat();
    let (client, _) = exec_server(vec![Step::Send(2, b"waiting".to_vec()), Step::Send(1, long), Step::Hang]).await;
    let (timeout, mut printed) = (Duration::from_millis(300), Tail::default());
    let error = run(&client, "n", "p", "c", COMMAND, &mut printed, timeout).await.unwrap_err();
    assert_eq!(error.to_string(), "`/kubectl-backup` in pod `p` didn't end within 0.3 s");
    assert!(matches!(error, Error::TimedOut { stderr_tail, .. } if stderr_tail == "waiting"));
    let printed = printed.text();
    assert!(printed.len() == KEPT && printed.ends_with("xthe last"), "{printed}");
}

#[tokio::test]
async fn what_cannot_be_started_says_why() {
    let (client, _) = exec_server(vec![failure("InternalError", "[]")]).await;
    let error = run_there(&client, &mut Vec::new()).await.unwrap_err();
    assert_eq!(error.to_string(), "can't run `/kubectl-backup` in pod `pod-1`: said the kubelet");
}

#[tokio::test]
async fn refusals_name_the_missing_rule() {
    let body = |reason: &str, code: u16| {
        format!(r#"{{"kind":"Status","status":"Failure","message":"no, said it","reason":"{reason}","code":{code}}}"#)
    };
    let client = refusing_server(403, body("Forbidden", 403)).await;
    let error = run_there(&client, &mut Vec::new()).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "not allowed to run a command in pod `pod-1`: no, said it\n\
         hint: needs `get` and `create` on `pods/exec` in namespace `kubectl-backup`"
    );
    let client = refusing_server(404, body("NotFound", 404)).await;
    let error = run_there(&client, &mut Vec::new()).await.unwrap_err();
    assert!(matches!(error, Error::NotFound { .. }) && !error.is_transient(), "{error}");
    let client = refusing_server(500, body("InternalError", 500)).await;
    let error = run_there(&client, &mut Vec::new()).await.unwrap_err();
    assert!(matches!(error, Error::NotStarted { code: 500, .. }) && error.is_transient(), "{error}");
}

#[tokio::test]
async fn a_closed_stdout_is_our_own_failure() {
    let (client, _) = exec_server(vec![Step::Send(1, vec![1; 100]), Step::Hang]).await;
    let (mut near, far) = tokio::io::duplex(10);
    drop(far);
    let error = run_there(&client, &mut near).await.unwrap_err();
    assert!(matches!(error, Error::Local { .. }) && !error.is_transient(), "{error}");
}
