# The dashboard of `lakeops metrics dashboard`, and an alarm for each of its figures that has a limit. `lakeops sla check`
# says more, but only where it runs; these notice that nothing runs.

variable "name" { type = string }
variable "dashboard" { type = any }
variable "topic_arn" { type = string }

variable "late" {
  description = "Limit of a figure, by its name. Above it the alarm goes off."
  type        = map(number)
}

locals {
  # A line of a widget is [namespace, figure, dimension, value, dimension, value].
  lines = flatten([for widget in var.dashboard.widgets : [
    for line in widget.properties.metrics : {
      namespace  = line[0], figure = line[1], subject = line[5],
      dimensions = { (line[2]) = line[3], (line[4]) = line[5] },
    }
  ]])
  limited = { for line in local.lines : "${line.figure} ${line.subject}" => line if contains(keys(var.late), line.figure) }
}

resource "aws_cloudwatch_dashboard" "this" {
  dashboard_name = var.name
  dashboard_body = jsonencode(var.dashboard)
}

resource "aws_cloudwatch_metric_alarm" "late" {
  for_each            = local.limited
  alarm_name          = "${var.name} ${each.key}"
  namespace           = each.value.namespace
  metric_name         = each.value.figure
  dimensions          = each.value.dimensions
  statistic           = "Maximum"
  comparison_operator = "GreaterThanThreshold"
  threshold           = var.late[each.value.figure]
  period              = 3600
  evaluation_periods  = 1
  treat_missing_data  = "ignore" # between two runs there is no figure; the alarm below notices that none comes
  alarm_actions       = [var.topic_arn]
  ok_actions          = [var.topic_arn]
}

# No figures of a run for two days, whether the scheduler, the network or the job is dead. A run that finds nothing new
# sends none.
resource "aws_cloudwatch_metric_alarm" "no_run" {
  for_each            = { for line in local.lines : line.subject => line if line.figure == "run_seconds" && line.subject == "run" }
  alarm_name          = "${var.name} no run for two days"
  namespace           = each.value.namespace
  metric_name         = each.value.figure
  dimensions          = each.value.dimensions
  statistic           = "SampleCount"
  comparison_operator = "LessThanThreshold"
  threshold           = 1
  period              = 86400
  evaluation_periods  = 2
  treat_missing_data  = "breaching"
  alarm_actions       = [var.topic_arn]
  ok_actions          = [var.topic_arn]
}

output "alarms" { value = sort([for alarm in aws_cloudwatch_metric_alarm.late : alarm.alarm_name]) }
